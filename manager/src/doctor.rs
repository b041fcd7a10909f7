//! `shardmeter-manager doctor`: looks at a deployment from outside, as scrapers, shards and people do, and says what to do about
//! what is wrong.
//!
//! ```text
//! http -> http-tls -> ingest, journal, token -> scrape
//! grpc -> grpc-tls -> fleet -> clock, shards, rejects, instances
//! ```
//!
//! Each check is a function that gives a [`Finding`]. One whose ground another one took away is not run. Nothing is changed,
//! and no token is sent to whom the certificate does not name.

mod api;
mod ask;
mod clock;
mod dial;
mod finding;
mod fleet;
mod ids;
mod ingest;
mod instances;
mod journal;
mod page;
mod ports;
mod rejects;
mod scrape;
mod shards;
mod tls;
mod token;
mod trust;

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use shardmeter_process::{Secret, reachable};

use crate::{Config, registry::MAX_SHARD_COUNT};
use dial::Target;
pub use finding::{Check, Finding, Report, Verdict};
use trust::Trust;
pub use trust::TrustError;

/// What the manager's binary can do instead of its work.
#[derive(Debug, clap::Subcommand)]
pub enum Instead {
    /// Look at a running manager from outside, and say what to do about what is wrong.
    ///
    /// Without flags it looks at the manager that runs on this machine with the same configuration. Exit code 0: all is
    /// well, or there are warnings alone; 1: something is wrong; 2: the flags are.
    Doctor(DoctorArgs),
}

/// Flags of the doctor.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct DoctorArgs {
    /// Where the manager's HTTP port is, http://HOST:PORT or https://HOST:PORT
    #[arg(long, value_name = "URL")]
    pub http: Option<String>,
    /// Where its gRPC port is
    #[arg(long, value_name = "URL")]
    pub grpc: Option<String>,
    /// Where the api is, to look at that too
    #[arg(long, value_name = "URL")]
    pub api: Option<String>,
    /// How many shards the bot has; by default what its shards say, and posts cannot say it
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_SHARD_COUNT)))]
    pub shards: Option<u32>,
    /// File with a view token; by default what the manager is configured with
    #[arg(long, value_name = "FILE")]
    pub view_token_file: Option<PathBuf>,
    /// Who signed the certificates (PEM); without it, those that browsers trust
    #[arg(long, value_name = "FILE")]
    pub ca_cert: Option<PathBuf>,
    /// One's own certificate (PEM), for a manager that asks for one
    #[arg(long, value_name = "FILE", requires = "client_key")]
    pub client_cert: Option<PathBuf>,
    /// The private key of --client-cert (PEM)
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    pub client_key: Option<PathBuf>,
    /// Say it in JSON
    #[arg(long)]
    pub json: bool,
}

/// Flags that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    /// No address.
    #[error("--{flag} {url}: it is not http://HOST[:PORT] or https://HOST[:PORT]")]
    Url {
        /// Which.
        flag: &'static str,
        /// As given.
        url: String,
    },
    /// No token can be read.
    #[error("--view-token-file {}: {error}", path.display())]
    Token {
        /// Which file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// Certificates or keys that cannot be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// A view token, and where it stands.
#[derive(Debug)]
struct Token {
    path: PathBuf,
    /// `Bearer TOKEN`.
    authorization: Secret,
}

/// What is looked at, and as whom.
#[derive(Debug)]
pub struct Deployment {
    http: Target,
    grpc: Target,
    api: Option<Target>,
    /// How many shards there should be.
    shards: Option<u32>,
    token: Option<Token>,
    trust: Trust,
}

impl Deployment {
    /// What the flags say; where they say nothing, a manager with this configuration on this machine.
    ///
    /// # Errors
    /// If something given cannot be used.
    pub fn new(args: &DoctorArgs, config: &Config) -> Result<Self, DoctorError> {
        let here = |addr: SocketAddr| {
            let scheme = if config.tls.tls_cert.is_some() { "https" } else { "http" };
            format!("{scheme}://{}", reachable(addr))
        };
        let target = |flag, given: &Option<String>, addr| {
            Target::parse(flag, &given.clone().unwrap_or_else(|| here(addr)))
        };
        let path = args.view_token_file.as_ref().or(config.access.view_token_file.as_ref());
        let token = path.map(|path| {
            let refuse = |error| DoctorError::Token { path: path.clone(), error };
            let authorization = read_token(path).map_err(refuse)?;
            Ok::<_, DoctorError>(Token { path: path.clone(), authorization })
        });
        Ok(Self {
            http: target("http", &args.http, config.http_addr)?,
            grpc: target("grpc", &args.grpc, config.grpc_addr)?,
            api: args.api.as_ref().map(|url| Target::parse("api", url)).transpose()?,
            shards: args.shards,
            token: token.transpose()?,
            trust: Trust::open(args)?,
        })
    }

    /// Runs every check.
    pub async fn examine(&self) -> Report {
        let mut report = Report::default();
        report.run(Check::Http, &[], ports::http(self)).await;
        report.run(Check::HttpTls, &[Check::Http], tls::http(self)).await;
        report.run(Check::Grpc, &[], ports::grpc(self)).await;
        report.run(Check::GrpcTls, &[Check::Grpc], tls::grpc(self)).await;
        let trusted = [Check::Http, Check::HttpTls];
        report.run(Check::Token, &trusted, token::check(self)).await;
        report.run(Check::Ingest, &trusted, ingest::check(self)).await;
        report.run(Check::Journal, &trusted, journal::check(self)).await;
        report.run(Check::Scrape, &[Check::HttpTls, Check::Token], scrape::check(self)).await;
        // Where the token could not be looked at, the shards can tell as well.
        let asked = report.passed(Check::HttpTls);
        let needed: &[Check] = match asked {
            true => &[Check::Grpc, Check::GrpcTls, Check::Token],
            false => &[Check::Grpc, Check::GrpcTls],
        };
        let mut listed = None;
        report.run(Check::Fleet, needed, fleet::check(self, &mut listed)).await;
        let mut fleet = listed.unwrap_or_default();
        if let Some(count) = self.shards {
            fleet.expect(count);
        }
        report.run(Check::Clock, &[Check::Fleet], async { clock::check(&fleet) }).await;
        report.run(Check::Shards, &[Check::Fleet], async { shards::check(&fleet) }).await;
        report.run(Check::Rejects, &[Check::Fleet], async { rejects::check(&fleet) }).await;
        report.run(Check::Instances, &[Check::Fleet], async { instances::check(&fleet) }).await;
        if let Some(target) = &self.api {
            report.run(Check::Api, &[], api::check(self, target)).await;
        }
        report
    }
}

/// The first line that is not empty.
fn read_token(path: &Path) -> io::Result<Secret> {
    let text = fs::read_to_string(path)?;
    let token = text.lines().map(str::trim).find(|line| !line.is_empty());
    let token = token.ok_or_else(|| io::Error::other("it has no token"))?;
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(io::Error::other("its token is not visible ASCII"));
    }
    Ok(format!("Bearer {token}").into())
}
