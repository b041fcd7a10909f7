use tokio::{
    io::duplex,
    time::{Instant, sleep},
};

use super::*;
use crate::testing::{Authority, Files};

const EVER: Duration = Duration::from_secs(1_000);

fn peer() -> Peer {
    Peer { addr: ([127, 0, 0, 1], 1).into(), certificate: None }
}

#[tokio::test(start_paused = true)]
async fn a_handshake_takes_no_longer_than_it_may() {
    let files = Files::new(&Authority::new().server(), None);
    let tls = Tls::open(&files.config()).unwrap().unwrap();
    for protocol in [Protocol::Http, Protocol::Grpc] {
        let (near, mut far) = duplex(1024);
        let began = Instant::now();
        let trickle = async {
            // The head of a ClientHello, and then its bytes one by one.
            let _ = far.write_all(&[22, 3, 1, 2, 0]).await;
            loop {
                sleep(Duration::from_secs(1)).await;
                let _ = far.write_all(&[1]).await;
            }
        };
        tokio::select! {
            agreed = timeout(EVER, agree(tls.acceptor(protocol), near, peer())) => {
                assert!(agreed.unwrap().is_err());
            }
            () = trickle => {}
        }
        assert_eq!(began.elapsed(), HANDSHAKE_WITHIN);
    }
}

#[tokio::test(start_paused = true)]
async fn a_preface_comes_in_time_and_then_nothing_need() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for (sent, closes) in [(0, true), (23, true), (24, false)] {
        let (near, mut far) = duplex(1024);
        let mut connection = Connection::new(near, peer(), Patience::with_preface(), None);
        let began = Instant::now();
        let trickle = async {
            for byte in &PREFACE[..sent] {
                far.write_all(&[*byte]).await.unwrap();
                sleep(Duration::from_millis(200)).await;
            }
            std::future::pending::<()>().await;
        };
        let mut read = Vec::new();
        tokio::select! {
            end = timeout(EVER, connection.read_to_end(&mut read)) => {
                assert_eq!(end.is_ok(), closes, "{sent} bytes");
            }
            () = trickle => {}
        }
        assert_eq!(read, PREFACE[..sent]);
        let expected = if closes { Duration::from_secs(10) } else { EVER };
        assert_eq!(began.elapsed(), expected, "{sent} bytes");
    }
}
