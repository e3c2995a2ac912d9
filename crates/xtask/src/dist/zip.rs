//! A ZIP archive (APPNOTE 6.3.10), as far as a wheel needs one: deflated files with their modes, and no times.

use std::io::Write;

use anyhow::{Context, Result};
use flate2::{Compression, Crc, write::DeflateEncoder};

/// 1980-01-01, the earliest that the format knows.
const DATE: u16 = 0x0021;

/// Made on Unix, so that the upper half of the attributes is a mode.
const MADE_ON_UNIX: u16 = 3 << 8 | 20;
const DEFLATED: u16 = 8;
/// Names are UTF-8.
const UTF8: u16 = 1 << 11;

/// An archive that grows.
#[derive(Debug, Default)]
pub(super) struct Zip {
    bytes: Vec<u8>,
    directory: Vec<u8>,
    count: u16,
}

impl Zip {
    /// One more file.
    pub(super) fn add(&mut self, name: &str, mode: u16, content: &[u8]) -> Result<()> {
        let offset = u32::try_from(self.bytes.len()).context("the archive is too large")?;
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(content)?;
        let packed = encoder.finish()?;
        let header = header(name, content, &packed)?;
        self.bytes.extend(0x0403_4b50_u32.to_le_bytes());
        self.bytes.extend(&header);
        self.bytes.extend(name.as_bytes());
        self.bytes.extend(&packed);

        self.directory.extend(0x0201_4b50_u32.to_le_bytes());
        self.directory.extend(MADE_ON_UNIX.to_le_bytes());
        self.directory.extend(&header);
        // No comment, first disk, no internal attributes.
        self.directory.extend([0; 6]);
        // A regular file of this mode.
        let attributes = (0o100_000 | u32::from(mode)) << 16;
        self.directory.extend(attributes.to_le_bytes());
        self.directory.extend(offset.to_le_bytes());
        self.directory.extend(name.as_bytes());
        self.count += 1;
        Ok(())
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> Result<Vec<u8>> {
        let offset = u32::try_from(self.bytes.len()).context("the archive is too large")?;
        let size = u32::try_from(self.directory.len())?;
        self.bytes.extend(&self.directory);
        self.bytes.extend(0x0605_4b50_u32.to_le_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend(self.count.to_le_bytes());
        self.bytes.extend(self.count.to_le_bytes());
        self.bytes.extend(size.to_le_bytes());
        self.bytes.extend(offset.to_le_bytes());
        self.bytes.extend([0; 2]);
        Ok(self.bytes)
    }
}

/// What a file's own header and its entry in the directory have in common.
fn header(name: &str, content: &[u8], packed: &[u8]) -> Result<Vec<u8>> {
    let mut crc = Crc::new();
    crc.update(content);
    let mut header = Vec::new();
    for field in [20, UTF8, DEFLATED, 0, DATE] {
        header.extend(field.to_le_bytes());
    }
    header.extend(crc.sum().to_le_bytes());
    header.extend(u32::try_from(packed.len())?.to_le_bytes());
    header.extend(u32::try_from(content.len())?.to_le_bytes());
    header.extend(u16::try_from(name.len())?.to_le_bytes());
    header.extend(0_u16.to_le_bytes());
    Ok(header)
}
