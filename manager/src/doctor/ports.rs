//! Whether both ports answer, and as what.

use http::Request;
use shardmeter_access::Protocol;
use tokio::time::{Instant, timeout};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::{
    Deployment, ask,
    dial::{ANSWERS_WITHIN, Target, Trouble, ends_at_once},
    finding::Found,
};

pub(super) async fn http(deployment: &Deployment) -> Found {
    look(deployment, &deployment.http, Protocol::Http).await
}

pub(super) async fn grpc(deployment: &Deployment) -> Found {
    look(deployment, &deployment.grpc, Protocol::Grpc).await
}

async fn look(deployment: &Deployment, target: &Target, protocol: Protocol) -> Found {
    let began = Instant::now();
    let trouble = match knock(deployment, target, protocol).await {
        Ok(None) => {
            return Found::ok(format!("{target} answers, {} ms", began.elapsed().as_millis()));
        }
        Ok(Some(refusal)) => {
            let what = format!("{target} answers that it is not well: {refusal}");
            return Found::failure(what, "see the manager's log; is it a manager at all?");
        }
        Err(trouble) => trouble,
    };
    let is_other = matches!(trouble, Trouble::Tls(_) | Trouble::Garbled(_));
    if is_other
        && !trouble.wants_certificate()
        && let Some(found) = something_else(deployment, target, protocol).await
    {
        return found;
    }
    Found::unanswered(target, &trouble)
}

/// What it is instead.
async fn something_else(
    deployment: &Deployment,
    target: &Target,
    protocol: Protocol,
) -> Option<Found> {
    let other_protocol = match protocol {
        Protocol::Http => Protocol::Grpc,
        Protocol::Grpc => Protocol::Http,
    };
    let flag = target.flag;
    let tried =
        [(!target.tls, protocol), (target.tls, other_protocol), (!target.tls, other_protocol)];
    for (tls, spoken) in tried {
        let other = target.with_tls(tls);
        match knock(deployment, &other, spoken).await {
            Err(trouble) if !trouble.wants_certificate() => continue,
            _ => {}
        }
        return Some(if spoken != protocol {
            let (is, should) = (name(spoken), name(protocol));
            let what = format!(
                "{target} is {}, not {should}",
                if tls { format!("{is} under TLS") } else { is.into() }
            );
            Found::failure(
                what,
                format!("give the {should} port to --{flag}; are the two ports mixed up?"),
            )
        } else if tls {
            let what = format!("{target} speaks TLS, and was asked without");
            Found::failure(
                what,
                format!("say --{flag} {other}; whoever reports or scrapes there says https:// too"),
            )
        } else {
            let what = format!("{target} does not speak TLS");
            let remedy = format!(
                "say --{flag} {other} if that is meant; else give the manager --tls-cert and --tls-key"
            );
            Found::failure(what, remedy)
        });
    }
    None
}

const fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "HTTP",
        Protocol::Grpc => "gRPC",
    }
}

/// Asks for nothing that needs a token, whoever answers; what it says, if it is not well.
async fn knock(
    deployment: &Deployment,
    target: &Target,
    protocol: Protocol,
) -> Result<Option<String>, Trouble> {
    let (config, _) = deployment.trust.looking();
    if protocol == Protocol::Http {
        let mut request = Request::new(String::new());
        *request.uri_mut() = http::Uri::from_static("/healthz");
        let answer = ask::http(target, &config, request, ANSWERS_WITHIN).await?;
        return Ok((!answer.status.is_success()).then(|| answer.reason()));
    }
    let asked = async {
        let channel = ask::grpc(target, &config).await?;
        let health = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
        match health {
            Ok(_) => Ok(None),
            Err(status) => match std::error::Error::source(&status) {
                Some(error) => Err(Trouble::of(error)),
                None => Ok(Some(format!("{:?}, {}", status.code(), status.message()))),
            },
        }
    };
    let asked = timeout(ANSWERS_WITHIN * 2, asked).await;
    match asked.unwrap_or(Err(Trouble::Silent(ANSWERS_WITHIN))) {
        Err(garbled @ Trouble::Garbled(_)) if target.tls => {
            Err(ends_at_once(target, &config).await.unwrap_or(garbled))
        }
        asked => asked,
    }
}
