//! Frames that speak of the connection: SETTINGS, PING, and the windows that the client opens.

use message::frame::{self, Code, Head, Kind, Setting, flag};

use super::{Attack, Fatal, Found, LAST_PING, Session, broken};

impl Session {
    pub(super) fn settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        if head.stream != 0 {
            return broken("SETTINGS on a stream");
        }
        self.budget.spend(Attack::SettingsFlood)?;
        let wrong = Fatal::Broken(Code::FrameSize, "SETTINGS of another length");
        if head.has(flag::ACK) {
            return if payload.is_empty() {
                Ok(())
            } else {
                Err(wrong)
            };
        }
        for (number, value) in frame::settings(payload).ok_or(wrong)? {
            if let Some(setting) = Setting::of(number) {
                self.setting(setting, value)?;
            }
        }
        self.write(Kind::Settings, flag::ACK, 0, b"");
        Ok(())
    }

    fn setting(&mut self, setting: Setting, value: u32) -> Result<(), Fatal> {
        match setting {
            Setting::HeaderTableSize => self.encoder.resize(value as usize),
            Setting::EnablePush | Setting::EnableConnectProtocol if value > 1 => {
                return broken("a setting that is yes or no is neither");
            }
            Setting::MaxFrameSize if !(frame::LARGEST..1 << 24).contains(&(value as usize)) => {
                return broken("SETTINGS_MAX_FRAME_SIZE is out of range");
            }
            Setting::InitialWindowSize if value > frame::MOST => {
                return Err(Fatal::Broken(
                    Code::FlowControl,
                    "SETTINGS_INITIAL_WINDOW_SIZE",
                ));
            }
            Setting::InitialWindowSize => {
                let change = i64::from(value) - self.initial_window;
                self.initial_window = i64::from(value);
                // Windows may become negative (RFC 9113 §6.9.2), but not too large.
                for stream in &mut self.streams {
                    stream.window_out += change;
                    if stream.window_out > i64::from(frame::MOST) {
                        return Err(Fatal::Broken(Code::FlowControl, "a window is too large"));
                    }
                }
                self.wake_waiting();
            }
            // We push nothing, send no frame that is longer than everybody takes, and no head that is long.
            _ => {}
        }
        Ok(())
    }

    pub(super) fn ping(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        if head.stream != 0 {
            return broken("PING on a stream");
        }
        if payload.len() != 8 {
            return Err(Fatal::Broken(Code::FrameSize, "PING of another length"));
        }
        self.budget.spend(Attack::PingFlood)?;
        if !head.has(flag::ACK) {
            self.write(Kind::Ping, flag::ACK, 0, payload);
        } else if payload == LAST_PING {
            self.farewell();
        }
        Ok(())
    }

    pub(super) fn window_update(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        let Some(more) = frame::number(payload) else {
            return Err(Fatal::Broken(
                Code::FrameSize,
                "WINDOW_UPDATE of another length",
            ));
        };
        self.budget.spend(Attack::WindowFlood)?;
        if head.stream == 0 {
            self.window_out += i64::from(more);
            if more == 0 || self.window_out > i64::from(frame::MOST) {
                let code = if more == 0 {
                    Code::Protocol
                } else {
                    Code::FlowControl
                };
                return Err(Fatal::Broken(code, "WINDOW_UPDATE by nothing, or too much"));
            }
            self.wake_waiting();
            return Ok(());
        }
        match self.find(head.stream) {
            Found::Idle => broken("WINDOW_UPDATE of an idle stream"),
            Found::Closed => Ok(()),
            Found::Here(_) if more == 0 => self.stream_error(head.stream, Code::Protocol, None),
            Found::Here(place) => {
                let stream = &mut self.streams[place];
                let opened = stream.window_out + i64::from(more);
                // Kept as it was: what opens all windows judges that of a stream which is gone as well.
                if opened > i64::from(frame::MOST) {
                    return self.stream_error(head.stream, Code::FlowControl, None);
                }
                stream.window_out = opened;
                if std::mem::take(&mut stream.waits) {
                    self.woken.push(place);
                }
                Ok(())
            }
        }
    }
}
