//! The account at an authority: the one that was kept, or another one.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::{
    client::Client,
    link::Link,
    message::{Keep, Setup},
    order::Failure,
    schedule::Kind,
};

/// What is kept of it.
#[derive(Deserialize)]
struct Kept {
    /// Whom the authority may write to, as it was told last.
    email: Option<String>,
    credentials: AccountCredentials,
}

/// The same, to be written.
#[derive(Serialize)]
struct ToKeep<'a> {
    email: Option<&'a str>,
    credentials: &'a AccountCredentials,
}

/// The account: that of the setup, else a new one, which is kept before it is used.
pub(crate) async fn open(
    setup: &mut Setup,
    client: &Client,
    link: &Link,
) -> Result<Account, Failure> {
    let known = setup.account.as_deref().map(serde_json::from_str::<Kept>);
    match known {
        Some(Ok(kept)) => reopen(kept, setup, client, link).await,
        Some(Err(error)) => {
            warn!("the account that was kept cannot be read, another one is made: {error}");
            make(setup, client, link).await
        }
        None => make(setup, client, link).await,
    }
}

async fn reopen(
    kept: Kept,
    setup: &mut Setup,
    client: &Client,
    link: &Link,
) -> Result<Account, Failure> {
    let text = text_of(setup.email.as_deref(), &kept.credentials)?;
    let builder = Account::builder_with_http(Box::new(client.clone()));
    let account = builder.from_credentials(kept.credentials).await;
    let account = account.map_err(|error| Failure::of(&error, client))?;
    if kept.email != setup.email {
        let contact: Vec<String> = setup.email.iter().map(|email| mailto(email)).collect();
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let updated = account.update_contacts(&contact).await;
        updated.map_err(|error| Failure::of(&error, client))?;
        keep(setup, text, link).await?;
    }
    Ok(account)
}

/// A new account. Writing `[acme]` is agreeing to the terms (RFC 8555 §7.3.3).
async fn make(setup: &mut Setup, client: &Client, link: &Link) -> Result<Account, Failure> {
    let (account, credentials) = made(setup, &setup.directory, client).await?;
    info!("new account at {}: {}", setup.directory, account.id());
    let text = text_of(setup.email.as_deref(), &credentials)?;
    keep(setup, text, link).await?;
    Ok(account)
}

/// An account that nobody has kept yet.
pub(crate) async fn made(
    setup: &Setup,
    directory: &str,
    client: &Client,
) -> Result<(Account, AccountCredentials), Failure> {
    let contact: Vec<String> = setup.email.iter().map(|email| mailto(email)).collect();
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let new = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let builder = Account::builder_with_http(Box::new(client.clone()));
    let eab = match &setup.eab {
        None => None,
        Some((id, key)) => {
            let key = mac_key(key)
                .ok_or_else(|| Failure::new(Kind::Here, "the key of `eab` is not in base64"))?;
            Some(ExternalAccountKey::new(id.clone(), &key))
        }
    };
    let made = builder
        .create(&new, directory.to_owned(), eab.as_ref())
        .await;
    made.map_err(|error| Failure::of(&error, client))
}

/// A key as authorities write it: base64 of either alphabet, with or without padding. `None` where it is none.
#[must_use]
pub fn mac_key(text: &str) -> Option<Vec<u8>> {
    let text = text.trim().trim_end_matches('=');
    let text = text.replace('+', "-").replace('/', "_");
    let key = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
    (!key.is_empty()).then_some(key)
}

fn text_of(email: Option<&str>, credentials: &AccountCredentials) -> Result<String, Failure> {
    let text = serde_json::to_string(&ToKeep { email, credentials });
    text.map_err(|error| {
        Failure::new(
            Kind::Here,
            format!("cannot write down the account: {error}"),
        )
    })
}

async fn keep(setup: &mut Setup, text: String, link: &Link) -> Result<(), Failure> {
    link.keep(Keep::Account(text.clone())).await?;
    setup.account = Some(text);
    Ok(())
}

fn mailto(email: &str) -> String {
    format!("mailto:{email}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_authorities_write_them() {
        let key = Some(vec![0xfb, 0xef, 0xff]);
        for text in ["--__", "++//", "  --__\n"] {
            assert_eq!(mac_key(text), key, "{text}");
        }
        assert_eq!(mac_key("_w=="), Some(vec![0xff]));
        for text in ["", "not base64!", "="] {
            assert_eq!(mac_key(text), None, "{text}");
        }
    }
}
