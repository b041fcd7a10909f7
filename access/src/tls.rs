//! Certificates, and what is agreed on with them. rustls does the work, with ring's cryptography.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Mutex, RwLock};
use ring::digest::{Context, Digest, SHA256};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, RootCertStore, ServerConfig, ServerConnection,
        crypto::ring::default_provider,
        pki_types::{
            CertificateDer, PrivateKeyDer,
            pem::{self, PemObject as _},
        },
        server::WebPkiClientVerifier,
    },
};
use x509_cert::{Certificate, der::Decode as _};

use crate::files;

/// What a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// gRPC, which is HTTP/2.
    Grpc,
}

/// TLS, on all ports alike. The files are read again when they change.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TlsConfig {
    /// Certificate (PEM, with its intermediates) for TLS on every port; goes with --tls-key
    #[arg(long, env = "SHARDMETER_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, env = "SHARDMETER_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Certificates (PEM) of those that sign clients' certificates: whoever connects needs one
    #[arg(long, env = "SHARDMETER_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,
}

/// One of the TLS flags lacks another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given} needs {missing}")]
pub struct TlsIncomplete {
    given: &'static str,
    missing: &'static str,
}

impl TlsConfig {
    /// Whether the flags fit each other.
    ///
    /// # Errors
    /// If one lacks another.
    pub fn validate(&self) -> Result<(), TlsIncomplete> {
        let (cert, key, ca) = ("--tls-cert", "--tls-key", "--tls-client-ca");
        let incomplete = |given, missing| Err(TlsIncomplete { given, missing });
        match (&self.tls_cert, &self.tls_key, &self.tls_client_ca) {
            (Some(_), None, _) => incomplete(cert, key),
            (None, Some(_), _) => incomplete(key, cert),
            (None, None, Some(_)) => incomplete(ca, cert),
            _ => Ok(()),
        }
    }
}

impl Protocol {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Grpc => "gRPC",
        }
    }

    /// As TLS names it (ALPN).
    const fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http => b"http/1.1",
            Self::Grpc => b"h2",
        }
    }
}

/// Why certificates cannot be used. Names the file.
#[derive(Debug, thiserror::Error)]
#[error("--{flag} {}: {problem}", path.display())]
pub struct TlsError {
    flag: &'static str,
    path: PathBuf,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("{0}")]
    Read(io::Error),
    #[error("it has no {0} in PEM")]
    Nothing(&'static str),
    #[error("its PEM is broken: {0}")]
    Pem(pem::Error),
    #[error("{0}")]
    Unusable(rustls::Error),
    #[error("the private key of --tls-key {} is not this certificate's", .0.display())]
    Mismatch(PathBuf),
    #[error("its certificates cannot vouch for anybody: {0}")]
    Roots(rustls::server::VerifierBuilderError),
}

/// The certificates that are used now.
pub struct Tls {
    files: Files,
    configs: RwLock<Configs>,
    /// What the files were when they were last read, of use or not.
    seen: Mutex<Seen>,
}

struct Files {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

/// For each protocol.
struct Configs {
    http: Arc<ServerConfig>,
    grpc: Arc<ServerConfig>,
}

/// What a look at the files brings, to tell whether they changed.
type Seen = Vec<u8>;

/// Without what the files hold.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("cert", &self.files.cert).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the certificates, if there are to be any.
    ///
    /// # Errors
    /// If a file cannot be used.
    pub fn open(config: &TlsConfig) -> Result<Option<Self>, TlsError> {
        let (Some(cert), Some(key)) = (&config.tls_cert, &config.tls_key) else {
            return Ok(None);
        };
        let client_ca = config.tls_client_ca.clone();
        let files = Files { cert: cert.clone(), key: key.clone(), client_ca };
        let contents = files.read();
        let seen = Mutex::new(contents.seen());
        let configs = RwLock::new(files.load(contents)?);
        Ok(Some(Self { files, configs, seen }))
    }

    /// What agrees on TLS with a new peer.
    pub(crate) fn acceptor(&self, protocol: Protocol) -> TlsAcceptor {
        let configs = self.configs.read();
        let config = match protocol {
            Protocol::Http => &configs.http,
            Protocol::Grpc => &configs.grpc,
        };
        TlsAcceptor::from(Arc::clone(config))
    }

    /// Takes over what the files have now; connections that are open stay as they are. If it cannot be used (half of a pair
    /// was written), it says so once and goes on with what it had.
    ///
    /// Takes as long as the disk does; meant to be called every second.
    pub fn reload(&self) {
        let contents = self.files.read();
        let now = contents.seen();
        let before = std::mem::replace(&mut *self.seen.lock(), now.clone());
        if before == now {
            return;
        }
        match self.files.load(contents) {
            Ok(configs) => {
                *self.configs.write() = configs;
                tracing::info!("certificates read again");
            }
            Err(error) => {
                tracing::error!(%error, "the certificates changed and cannot be used; they stay as they were");
            }
        }
    }
}

/// What the files hold at a time.
struct Contents {
    cert: io::Result<Vec<u8>>,
    key: io::Result<Vec<u8>>,
    client_ca: Option<io::Result<Vec<u8>>>,
}

impl Contents {
    fn seen(&self) -> Seen {
        let of_file = |read: &io::Result<Vec<u8>>| {
            let mut digest = Context::new(&SHA256);
            match read {
                Ok(text) => digest.update(text),
                Err(error) => digest.update(error.to_string().as_bytes()),
            }
            digest.finish()
        };
        let files = [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()];
        let digests: Vec<Digest> = files.into_iter().flatten().map(of_file).collect();
        digests.iter().flat_map(|digest| digest.as_ref().iter().copied()).collect()
    }
}

impl Files {
    fn read(&self) -> Contents {
        Contents {
            cert: files::read(&self.cert),
            key: files::read(&self.key),
            client_ca: self.client_ca.as_deref().map(files::read),
        }
    }

    fn load(&self, contents: Contents) -> Result<Configs, TlsError> {
        let in_cert = refuse("tls-cert", &self.cert);
        let chain = certificates(contents.cert).map_err(&in_cert)?;
        let key = private_key(contents.key).map_err(refuse("tls-key", &self.key))?;
        let provider = Arc::new(default_provider());
        let verifier = match self.client_ca.as_deref().zip(contents.client_ca) {
            None => WebPkiClientVerifier::no_client_auth(),
            Some((path, text)) => {
                let refuse = refuse("tls-client-ca", path);
                let mut roots = RootCertStore::empty();
                for certificate in certificates(text).map_err(&refuse)? {
                    roots.add(certificate).map_err(|e| refuse(Problem::Unusable(e)))?;
                }
                let roots = Arc::new(roots);
                WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
                    .build()
                    .map_err(|error| refuse(Problem::Roots(error)))?
            }
        };
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| in_cert(Problem::Unusable(error)))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => in_cert(Problem::Mismatch(self.key.clone())),
                // Of the two it can only be the key that rustls takes apart: the chain is bytes to it so far.
                error @ rustls::Error::General(_) => {
                    refuse("tls-key", &self.key)(Problem::Unusable(error))
                }
                error => in_cert(Problem::Unusable(error)),
            })?;
        let speaking = |protocol: Protocol| {
            let mut config = config.clone();
            config.alpn_protocols = vec![protocol.alpn().to_owned()];
            Arc::new(config)
        };
        Ok(Configs { http: speaking(Protocol::Http), grpc: speaking(Protocol::Grpc) })
    }
}

fn refuse<'a>(flag: &'static str, path: &'a Path) -> impl Fn(Problem) -> TlsError + 'a {
    move |problem| TlsError { flag, path: path.to_owned(), problem }
}

fn certificates(text: io::Result<Vec<u8>>) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let text = text.map_err(Problem::Read)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(Problem::Pem)?;
    if found.is_empty() { Err(Problem::Nothing("certificate")) } else { Ok(found) }
}

fn private_key(text: io::Result<Vec<u8>>) -> Result<PrivateKeyDer<'static>, Problem> {
    let text = text.map_err(Problem::Read)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => Problem::Nothing("private key"),
        error => Problem::Pem(error),
    })
}

/// Whose certificate the peer has shown, which is verified by then.
pub(crate) fn subject(agreed: &ServerConnection) -> Option<Arc<str>> {
    let shown = agreed.peer_certificates()?.first()?;
    let certificate = Certificate::from_der(shown).ok()?;
    Some(certificate.tbs_certificate().subject().to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Authority, Files};

    #[test]
    fn tls_needs_a_pair() {
        let file = || Some(PathBuf::from("file"));
        let tls = |tls_cert, tls_key, tls_client_ca| TlsConfig { tls_cert, tls_key, tls_client_ca };
        for (tls, complete) in [
            (tls(None, None, None), true),
            (tls(file(), file(), None), true),
            (tls(file(), file(), file()), true),
            (tls(file(), None, None), false),
            (tls(None, file(), file()), false),
            (tls(None, None, file()), false),
        ] {
            let valid = tls.validate();
            assert_eq!(valid.is_ok(), complete, "{valid:?}");
        }
    }

    /// Half of a pair, and rubbish, leave what was there; a whole pair replaces it.
    #[test]
    fn files_that_change_are_used_if_they_can_be() {
        let authority = Authority::new();
        let (old, next) = (authority.server(), authority.server());
        let files = Files::new(&old, None);
        let tls = Tls::open(&files.config()).unwrap().unwrap();
        let config = || Arc::clone(tls.acceptor(Protocol::Grpc).config());
        let before = config();
        for (cert, key) in [
            (&*next.cert, &*old.key),
            ("rubbish", &old.key),
            (&old.cert, ""),
            (&old.cert, &next.key),
        ] {
            files.put("cert.pem", cert);
            files.put("key.pem", key);
            tls.reload();
            assert!(Arc::ptr_eq(&before, &config()), "{cert} {key}");
        }
        files.put("cert.pem", &next.cert);
        tls.reload();
        let after = config();
        assert!(!Arc::ptr_eq(&before, &after));
        tls.reload();
        assert!(Arc::ptr_eq(&after, &config()), "nothing changed");
    }
}
