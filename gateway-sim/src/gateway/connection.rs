//! A connection: one task that owns a socket, from hello to the last frame.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::identify::{Identify, TooMany, close};
use super::payload;
use super::session::{self, Link, Outbound, Resumption, SessionCommand, StartRefused};
use super::sessions::SessionHandle;
use crate::state::Shared;

/// Discord's limit for a payload.
const MAX_PAYLOAD: usize = 4_096;
/// Discord's limit for payloads in a minute. Heartbeats are not counted, because tests ask for many of them.
const MAX_PAYLOADS: u32 = 120;
const PAYLOAD_WINDOW: Duration = Duration::from_secs(60);
/// A socket that takes nothing for this long is dropped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the bot has to answer a close frame.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// What the bot sends.
#[derive(Deserialize)]
struct Payload {
    op: i64,
    #[serde(default)]
    d: Value,
}

#[derive(Deserialize)]
struct Resume {
    token: String,
    session_id: String,
    seq: u64,
}

/// The session a connection serves.
struct Attached {
    session: SessionHandle,
    frames: mpsc::Receiver<Outbound>,
}

/// What to do next.
enum Step {
    Continue,
    /// Book and send a close frame.
    Close(u16),
    /// Send a close frame that is booked.
    HangUp(u16),
    /// The socket is gone, or to be dropped as it is.
    Drop,
}

/// The state of the task.
pub(super) struct Connection {
    socket: WebSocket,
    shared: Arc<Shared>,
    /// The gateway's address as the bot knows it; READY repeats it.
    url: String,
    /// Cancelled to drop the socket without a close frame.
    cut: CancellationToken,
    attached: Option<Attached>,
    heartbeat_due: Instant,
    /// Start of the window in which `payloads` were counted.
    window: Instant,
    payloads: u32,
}

impl Connection {
    pub(super) fn new(
        socket: WebSocket,
        shared: Arc<Shared>,
        url: String,
        cut: CancellationToken,
    ) -> Self {
        let now = Instant::now();
        Self {
            socket,
            shared,
            url,
            cut,
            attached: None,
            heartbeat_due: now,
            window: now,
            payloads: 0,
        }
    }

    /// Serves the socket until it ends.
    pub(super) async fn serve(mut self, is_spoken: bool) {
        self.expect_heartbeat();
        let hello = payload::hello(&self.shared.config);
        let mut step = match is_spoken {
            true => self.send(hello).await,
            false => Step::Close(close::INVALID_API_VERSION),
        };
        while let Step::Continue = step {
            step = tokio::select! {
                () = self.cut.cancelled() => Step::Drop,
                frame = next_frame(&mut self.attached) => self.pass_on(frame).await,
                message = self.socket.recv() => match message {
                    Some(Ok(message)) => self.receive(message).await,
                    Some(Err(_)) | None => Step::Drop,
                },
                () = tokio::time::sleep_until(self.heartbeat_due) => {
                    Step::Close(close::SESSION_TIMED_OUT)
                }
            };
        }
        match step {
            Step::Close(code) => {
                let shard = self.attached.as_ref().map(|attached| attached.session.shard);
                self.shared.change(|state| state.books.close(shard, code));
                if close::ends_session(code) {
                    self.end_session();
                }
                self.hang_up(code).await;
            }
            Step::HangUp(code) => self.hang_up(code).await,
            Step::Drop | Step::Continue => {}
        }
    }

    async fn pass_on(&mut self, frame: Option<Outbound>) -> Step {
        match frame {
            Some(Outbound::Frame(text)) => self.send(text).await,
            Some(Outbound::Close(code)) => Step::HangUp(code),
            Some(Outbound::InvalidSession(resumable)) => {
                self.attached = None;
                self.send(payload::invalid_session(resumable)).await
            }
            None => Step::Drop,
        }
    }

    async fn receive(&mut self, message: Message) -> Step {
        match message {
            Message::Text(text) if text.len() > MAX_PAYLOAD => Step::Close(close::DECODE_ERROR),
            Message::Text(text) => match serde_json::from_str::<Payload>(&text) {
                Ok(payload) => self.obey(payload).await,
                Err(_) => Step::Close(close::DECODE_ERROR),
            },
            Message::Binary(_) => Step::Close(close::DECODE_ERROR),
            Message::Ping(_) | Message::Pong(_) => Step::Continue,
            Message::Close(frame) => {
                // Without a code, 1005 stands for "none".
                self.leave(frame.map_or(1005, |frame| frame.code)).await;
                Step::Drop
            }
        }
    }

    async fn obey(&mut self, payload: Payload) -> Step {
        if payload.op != 1 && self.is_over_rate() {
            return Step::Close(close::RATE_LIMITED);
        }
        match payload.op {
            1 => self.heartbeat(&payload.d).await,
            2 if self.attached.is_some() => Step::Close(close::ALREADY_AUTHENTICATED),
            2 => self.identify(&payload.d).await,
            6 if self.attached.is_some() => Step::Close(close::ALREADY_AUTHENTICATED),
            6 => self.resume(payload.d).await,
            // Presence, voice state, guild members, soundboard: understood, and without effect here.
            3 | 4 | 8 | 31 if self.attached.is_some() => Step::Continue,
            3 | 4 | 8 | 31 => Step::Close(close::NOT_AUTHENTICATED),
            _ => Step::Close(close::UNKNOWN_OPCODE),
        }
    }

    async fn heartbeat(&mut self, data: &Value) -> Step {
        let sequence = data.as_u64();
        if sequence.is_none() && !data.is_null() {
            return Step::Close(close::DECODE_ERROR);
        }
        self.expect_heartbeat();
        let mut acked = true;
        if let Some(Attached { session, .. }) = &self.attached {
            acked =
                self.shared.change(|state| state.heartbeat(session.shard, &session.id, sequence));
            if let Some(sequence) = sequence {
                // Only makes room; the next heartbeat says it again.
                let _ = session.commands.try_send(SessionCommand::Confirmed(sequence));
            }
        }
        if acked { self.send(payload::heartbeat_ack()).await } else { Step::Continue }
    }

    async fn identify(&mut self, data: &Value) -> Step {
        let identify = match Identify::read(data, &self.shared.config) {
            Ok(identify) => identify,
            Err(code) => return Step::Close(code),
        };
        let admitted = self
            .shared
            .change(|state| state.starts.admit(&mut state.books, identify.shard, Instant::now()));
        match admitted {
            Ok(()) => {}
            Err(TooMany::OfKey) => return self.send(payload::invalid_session(false)).await,
            // The token is reset.
            Err(TooMany::OfDay) => return Step::Close(close::AUTHENTICATION_FAILED),
        }
        let (link, frames) = Link::new(self.cut.clone());
        match session::start(&self.shared, identify, link, &self.url) {
            Ok(session) => {
                tracing::debug!(shard = identify.shard, count = identify.shard_count, "identified");
                self.attached = Some(Attached { session, frames });
                Step::Continue
            }
            Err(StartRefused::TooManyGuilds) => Step::Close(close::SHARDING_REQUIRED),
            Err(StartRefused::ConnectionCut) => Step::Drop,
        }
    }

    async fn resume(&mut self, data: Value) -> Step {
        let Ok(resume) = serde_json::from_value::<Resume>(data) else {
            return Step::Close(close::DECODE_ERROR);
        };
        if !self.shared.config.accepts(&resume.token) {
            return Step::Close(close::AUTHENTICATION_FAILED);
        }
        let Some(session) = self.shared.read(|state| state.sessions.find(&resume.session_id))
        else {
            return self.refuse_resume(None).await;
        };
        let (link, frames) = Link::new(self.cut.clone());
        let (done, resumed) = oneshot::channel();
        let command = SessionCommand::Resume { sequence: resume.seq, link, done };
        // A session that ends meanwhile drops the command, which reads as "no such session".
        let _ = session.commands.send(command).await;
        match resumed.await {
            Ok(Resumption::Resumed) => {
                tracing::debug!(shard = session.shard, "resumed");
                self.attached = Some(Attached { session, frames });
                Step::Continue
            }
            Ok(Resumption::BeyondSequence) => {
                let (shard, code) = (session.shard, close::INVALID_SEQUENCE);
                self.shared.change(|state| state.books.close(Some(shard), code));
                Step::HangUp(code)
            }
            Ok(Resumption::Expired) | Err(_) => self.refuse_resume(Some(session.shard)).await,
        }
    }

    /// Answers a resume that cannot be: the bot has to identify. Without a session nobody knows whose resume it was, so
    /// it is booked by shard only where that is known.
    async fn refuse_resume(&mut self, shard: Option<u32>) -> Step {
        self.shared.change(|state| match shard {
            Some(shard) => {
                let sent = &mut state.books.shard_mut(shard).invalid_sessions;
                *sent.entry(false).or_default() += 1;
            }
            None => state.books.unknown_resumes += 1,
        });
        self.send(payload::invalid_session(false)).await
    }

    /// The bot closes. With 1000 and 1001 it says that it will not resume.
    async fn leave(&mut self, code: u16) {
        if let Some(attached) = &self.attached {
            let shard = attached.session.shard;
            self.shared.change(|state| {
                let closes = &mut state.books.shard_mut(shard).closes_received;
                *closes.entry(code).or_default() += 1;
            });
            if matches!(code, 1000 | 1001) {
                self.end_session();
            }
        }
        // Reading on is what sends the answer to the close frame.
        self.drain().await;
    }

    fn end_session(&mut self) {
        if let Some(Attached { session, .. }) = self.attached.take() {
            let SessionHandle { id, shard, .. } = &session;
            self.shared.change(|state| state.sessions.end(&mut state.books, *shard, id));
            session.ended.cancel();
        }
    }

    async fn hang_up(&mut self, code: u16) {
        // From here on the session has no connection, and the bot may resume elsewhere.
        self.attached = None;
        let frame = CloseFrame { code, reason: Utf8Bytes::from_static("") };
        let sent = self.socket.send(Message::Close(Some(frame)));
        if let Ok(Ok(())) = tokio::time::timeout(WRITE_TIMEOUT, sent).await {
            self.drain().await;
        }
    }

    /// Reads until the bot has closed as well, for a while.
    async fn drain(&mut self) {
        let until_end = async { while let Some(Ok(_)) = self.socket.recv().await {} };
        tokio::select! {
            _ = tokio::time::timeout(CLOSE_GRACE, until_end) => {}
            () = self.cut.cancelled() => {}
        }
    }

    async fn send(&mut self, text: Utf8Bytes) -> Step {
        let sent = tokio::time::timeout(WRITE_TIMEOUT, self.socket.send(Message::Text(text)));
        tokio::select! {
            sent = sent => match sent {
                Ok(Ok(())) => Step::Continue,
                Ok(Err(_)) | Err(_) => Step::Drop,
            },
            () = self.cut.cancelled() => Step::Drop,
        }
    }

    /// A heartbeat is due within one and a half intervals.
    fn expect_heartbeat(&mut self) {
        self.heartbeat_due = Instant::now() + self.shared.config.heartbeat_interval.mul_f64(1.5);
    }

    fn is_over_rate(&mut self) -> bool {
        if self.window.elapsed() >= PAYLOAD_WINDOW {
            (self.window, self.payloads) = (Instant::now(), 0);
        }
        self.payloads += 1;
        self.payloads > MAX_PAYLOADS
    }
}

async fn next_frame(attached: &mut Option<Attached>) -> Option<Outbound> {
    match attached {
        Some(attached) => attached.frames.recv().await,
        None => std::future::pending().await,
    }
}
