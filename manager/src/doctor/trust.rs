//! Whom the doctor believes under TLS, and how it names itself.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_rustls::rustls::{
    self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};

use super::DoctorArgs;

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("--{flag} {}: {reason}", path.display())]
pub struct TrustError {
    flag: &'static str,
    path: PathBuf,
    reason: String,
}

/// How connections are secured.
#[derive(Debug)]
pub(super) struct Trust {
    /// With whom certificates are looked at.
    verifier: Arc<WebPkiServerVerifier>,
    /// Believes none but those.
    pub(super) own: ClientConfig,
    /// The same, without a certificate of one's own.
    pub(super) anonymous: ClientConfig,
}

impl Trust {
    pub(super) fn open(args: &DoctorArgs) -> Result<Self, TrustError> {
        let refuse = |flag, path: &Path, reason: String| {
            let path = path.to_owned();
            TrustError { flag, path, reason }
        };
        let ca = args.ca_cert.as_deref();
        let roots = match ca {
            None => webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates("ca-cert", path)? {
                    let added = roots.add(certificate);
                    added.map_err(|error| refuse("ca-cert", path, error.to_string()))?;
                }
                roots
            }
        };
        let ca_path = ca.unwrap_or(Path::new(""));
        let unusable = |error: String| refuse("ca-cert", ca_path, error);
        let provider = Arc::new(default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let verifier = verifier.build().map_err(|error| unusable(error.to_string()))?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(error.to_string()))?
            .with_webpki_verifier(Arc::clone(&verifier));
        let anonymous = builder.clone().with_no_client_auth();
        let own = match args.client_cert.as_deref().zip(args.client_key.as_deref()) {
            None => anonymous.clone(),
            Some((cert, key_path)) => {
                let chain = certificates("client-cert", cert)?;
                let key = read("client-key", key_path)?;
                let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| {
                    refuse("client-key", key_path, "it has no private key in PEM".to_owned())
                })?;
                let own = builder.with_client_auth_cert(chain, key);
                own.map_err(|error| refuse("client-cert", cert, error.to_string()))?
            }
        };
        Ok(Self { verifier, own, anonymous })
    }

    /// Believes anybody, and remembers what they showed: good for a look at them, and nothing else.
    pub(super) fn looking(&self) -> (ClientConfig, Arc<Looking>) {
        let verifier = Arc::clone(&self.verifier);
        let looking = Arc::new(Looking { verifier, shown: parking_lot::Mutex::default() });
        let mut config = self.own.clone();
        config.dangerous().set_certificate_verifier(Arc::clone(&looking) as _);
        // One resumed would show nothing.
        config.resumption = rustls::client::Resumption::disabled();
        (config, looking)
    }
}

fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, TrustError> {
    let refuse =
        |error: io::Error| TrustError { flag, path: path.to_owned(), reason: error.to_string() };
    fs::read(path).map_err(refuse)
}

fn certificates(
    flag: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let pem = read(flag, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.ok().filter(|found| !found.is_empty());
    let reason = || "it has no certificate in PEM".to_owned();
    found.ok_or_else(|| TrustError { flag, path: path.to_owned(), reason: reason() })
}

/// What a peer showed, and what is to be thought of it.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) verified: Result<(), rustls::Error>,
}

/// See [`Trust::looking`].
#[derive(Debug)]
pub(super) struct Looking {
    verifier: Arc<WebPkiServerVerifier>,
    shown: parking_lot::Mutex<Option<Shown>>,
}

impl Looking {
    pub(super) fn shown(&self) -> Option<Shown> {
        self.shown.lock().clone()
    }
}

impl ServerCertVerifier for Looking {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified =
            self.verifier.verify_server_cert(end_entity, intermediates, name, ocsp, now).map(drop);
        let certificate = end_entity.clone().into_owned();
        *self.shown.lock() = Some(Shown { certificate, verified });
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
