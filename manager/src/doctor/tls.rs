//! Certificates: whom they name, who signed them, until when. And what goes over networks without any.

use std::{net::IpAddr, time::Duration};

use shardmeter_access::Protocol;
use tokio_rustls::rustls::{self, CertificateError};
use x509_cert::{Certificate, der::Decode as _};

use super::{
    Deployment,
    dial::{Target, dial},
    finding::Found,
    trust::Shown,
};
use crate::clock::{Clock, UnixTime};

/// Whoever renews certificates has done so by then.
const DAYS_LEFT: u64 = 14;

const RENEW: &str =
    "renew it; the manager takes over the files of --tls-cert and --tls-key when they change";

const DAY: Duration = Duration::from_hours(24);

pub(super) async fn http(deployment: &Deployment) -> Found {
    check(deployment, &deployment.http, Protocol::Http).await
}

pub(super) async fn grpc(deployment: &Deployment) -> Found {
    check(deployment, &deployment.grpc, Protocol::Grpc).await
}

async fn check(deployment: &Deployment, target: &Target, protocol: Protocol) -> Found {
    if !target.tls {
        return without(deployment, target).await;
    }
    let (config, looking) = deployment.trust.looking();
    if let Err(trouble) = dial(target, protocol, &config).await {
        return Found::unanswered(target, &trouble);
    }
    let Some(shown) = looking.shown() else {
        let what = format!("{target} shows no certificate");
        return Found::failure(what, "see what listens there");
    };
    match examine(target, &shown) {
        Ok(days) if days < DAYS_LEFT => {
            Found::warning(format!("the certificate ends in {days} days"), RENEW)
        }
        Ok(days) => Found::ok(format!("the certificate is trusted, and good for {days} days")),
        Err(found) => found,
    }
}

/// How many days a certificate is still good.
fn examine(target: &Target, shown: &Shown) -> Result<u64, Found> {
    match &shown.verified {
        Ok(()) => {}
        Err(rustls::Error::InvalidCertificate(reason)) => {
            let what =
                format!("{target}: its certificate is not to be trusted: {}", why(reason, target));
            return Err(Found::failure(what, cure(reason)));
        }
        Err(error) => {
            let what = format!("{target}: its certificate cannot be used ({error})");
            return Err(Found::failure(what, "have another made"));
        }
    }
    let certificate = Certificate::from_der(&shown.certificate);
    let end = certificate.map(|c| c.tbs_certificate().validity().not_after.to_unix_duration());
    let now = Clock::new().now();
    let left = end.map(|end| UnixTime::from_duration(end).since(now)).unwrap_or_default();
    Ok(left.as_secs() / DAY.as_secs())
}

fn why(reason: &CertificateError, target: &Target) -> String {
    match reason {
        CertificateError::UnknownIssuer => "nobody known signed it".to_owned(),
        // A CA that was made anew.
        CertificateError::BadSignature => {
            "a CA of the name that is on it is known, and did not sign it".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("it is not for the name {}", target.host)
        }
        other => other.to_string(),
    }
}

/// What to do about a certificate that is not trusted.
pub(super) fn cure(reason: &CertificateError) -> &'static str {
    match reason {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "give --ca-cert with the certificate of who signed it; does --tls-cert have the intermediates too?"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => RENEW,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "set this machine's clock, or wait"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "ask by a name that it is for, or have one made for this name too"
        }
        _ => "have another made",
    }
}

/// Without TLS.
async fn without(deployment: &Deployment, target: &Target) -> Found {
    let found = target.addresses().await.unwrap_or_default();
    if !found.is_empty() && found.iter().all(IpAddr::is_loopback) {
        return Found::ok("no TLS, and none needed on this machine");
    }
    if deployment.token.is_none() {
        return Found::ok("no TLS, and no token to be read on the way");
    }
    Found::warning(
        format!("{target} has no TLS: whoever is on the way reads tokens and counts"),
        "give the manager --tls-cert and --tls-key, unless the network between is your own",
    )
}
