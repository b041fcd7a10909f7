//! A gateway client that says whatever it is told to.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::MaybeTlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::Sim;

pub(crate) struct Raw {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// What comes next.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    Payload(Value),
    Closed(u16),
    /// The connection ended without a close frame.
    Dropped,
}

pub(crate) fn identify(shard: u32, shard_count: u32) -> Value {
    json!({"op": 2, "d": {
        "token": "Bot token",
        "intents": 1,
        "properties": {"os": "test"},
        "shard": [shard, shard_count],
    }})
}

impl Raw {
    /// Connects and reads hello.
    pub(crate) async fn connect(sim: &Sim) -> Self {
        let mut raw = Self::connect_with(sim, "?v=10&encoding=json").await;
        let Next::Payload(hello) = raw.next().await else { panic!("no hello") };
        assert_eq!(hello["op"], 10);
        raw
    }

    pub(crate) async fn connect_with(sim: &Sim, query: &str) -> Self {
        let url = format!("{}/{query}", sim.gateway_url);
        let (socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        Self { socket }
    }

    /// Connects and identifies.
    pub(crate) async fn identified(sim: &Sim, shard: u32, shard_count: u32) -> Self {
        let mut raw = Self::connect(sim).await;
        raw.send(&identify(shard, shard_count)).await;
        raw.event("READY").await;
        raw
    }

    pub(crate) async fn send(&mut self, payload: &Value) {
        self.send_message(Message::text(payload.to_string())).await;
    }

    pub(crate) async fn send_message(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Next {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    return Next::Payload(serde_json::from_str(&text).unwrap());
                }
                Some(Ok(Message::Close(Some(frame)))) => return Next::Closed(frame.code.into()),
                Some(Ok(Message::Close(None)) | Err(_)) | None => return Next::Dropped,
                Some(Ok(_)) => {}
            }
        }
    }

    /// The next payload with this operation, whatever comes before.
    pub(crate) async fn operation(&mut self, op: u64) -> Value {
        loop {
            match self.next().await {
                Next::Payload(payload) if payload["op"] == op => return payload,
                Next::Payload(_) => {}
                ended => panic!("ended before op {op}: {ended:?}"),
            }
        }
    }

    /// The data of the next event of this type.
    pub(crate) async fn event(&mut self, kind: &str) -> Value {
        loop {
            let mut payload = self.operation(0).await;
            if payload["t"] == kind {
                return payload["d"].take();
            }
        }
    }

    /// How it ends, whatever comes before.
    pub(crate) async fn end(&mut self) -> Next {
        loop {
            match self.next().await {
                Next::Payload(_) => {}
                ended => return ended,
            }
        }
    }
}
