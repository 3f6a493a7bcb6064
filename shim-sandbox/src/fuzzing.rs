//! Doors for fuzzers: each takes any bytes, and must neither panic nor hang.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use crate::channel::{self, Opener, Purpose};

/// What the line holds at once.
const LINE: usize = 1 << 20;

/// Says these bytes on a line: the first one chooses which half hears them.
pub fn channel(bytes: &[u8]) {
    let Some((&first, said)) = bytes.split_first() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let (ours, theirs) = duplex(LINE);
        if first.is_multiple_of(2) {
            tokio::join!(host(channel::host(ours)), say(theirs, said));
        } else {
            tokio::join!(guest(ours), say(theirs, said));
        }
    });
}

/// Opens streams as a host does, until the line has ended.
async fn host(opener: Opener) {
    let ended = opener.ended();
    for purpose in [Purpose::Calls, Purpose::Output("s1".into()), Purpose::Dial(1)] {
        if let Ok(mut stream) = channel::open(&opener, &purpose).await {
            let mut answer = Vec::new();
            let _broken = stream.read_to_end(&mut answer).await;
        }
    }
    drop(opener);
    ended.await;
}

/// Takes streams as a guest does, until the line has ended.
async fn guest(line: DuplexStream) {
    let mut incoming = channel::guest(line);
    while let Some(mut stream) = incoming.next().await {
        tokio::spawn(async move {
            let taken = channel::accept(&mut stream, async |_| Ok(())).await;
            let mut rest = Vec::new();
            if taken.is_ok() {
                let _broken = stream.read_to_end(&mut rest).await;
            }
        });
    }
}

async fn say(mut line: DuplexStream, said: &[u8]) {
    let _refused = line.write_all(said).await;
    let _gone = line.shutdown().await;
    let mut heard = Vec::new();
    let _broken = line.read_to_end(&mut heard).await;
}

#[cfg(test)]
mod tests {
    use super::channel;
    use crate::replay::replay;

    #[test]
    fn the_line_takes_anything() {
        replay("channel", channel);
    }
}
