//! What a client sends, read with limits: a message that is too long or malformed is told from one
//! that is not, before anything is kept of it.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of a message before the client has logged in.
pub const STRANGER_BYTES_MAX: usize = 10_000;
/// Bytes that are read ahead while a statement runs.
const AHEAD_BYTES_MAX: usize = 64 * 1024;

const CANCEL: u32 = 80_877_102;
const TLS: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

/// Why nothing more can be read.
#[derive(Debug)]
pub enum Fault {
    /// The client is gone.
    Gone,
    /// A message is longer than it may be.
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// A message cannot be read.
    Malformed(&'static str),
}

impl From<std::io::Error> for Fault {
    fn from(_error: std::io::Error) -> Self {
        Self::Gone
    }
}

/// The first thing that a client sends.
#[derive(Debug, PartialEq)]
pub enum Opening {
    /// It asks for TLS.
    Tls,
    /// It asks for Kerberos' encryption.
    Gss,
    /// It asks to cancel what another connection runs.
    Cancel {
        /// The other connection's number.
        process_id: i32,
        /// Its key.
        key: Bytes,
    },
    /// It opens a session.
    Session {
        /// The protocol's version.
        version: (u16, u16),
        /// User, database and parameters.
        parameters: BTreeMap<String, String>,
    },
}

/// A message of a client that is logged in, or that sends its password.
#[derive(Debug, PartialEq)]
pub enum Message {
    /// A script, to be run at once.
    Query(String),
    /// A statement to keep.
    Parse {
        /// Its name; empty for the unnamed one.
        name: String,
        /// Its text.
        text: String,
        /// Types of parameters, 0 where they are to be told.
        types: Vec<u32>,
    },
    /// Values for a statement.
    Bind {
        /// The name of the result's portal.
        portal: String,
        /// The statement's name.
        statement: String,
        /// The values' formats.
        formats: Vec<i16>,
        /// The values.
        values: Vec<Option<Bytes>>,
        /// The result's formats.
        results: Vec<i16>,
    },
    /// A question for types.
    Describe {
        /// Whether a portal is meant, not a statement.
        portal: bool,
        /// Its name.
        name: String,
    },
    /// A portal to run.
    Execute {
        /// Its name.
        portal: String,
        /// How many rows; 0 for all.
        rows_max: u32,
    },
    /// A portal or statement to forget.
    Close {
        /// Whether a portal is meant, not a statement.
        portal: bool,
        /// Its name.
        name: String,
    },
    /// A password.
    Password(String),
    /// What was answered is to be sent.
    Flush,
    /// The end of what belongs together.
    Sync,
    /// Good-bye.
    Terminate,
    /// Part of a COPY, which nobody asked for.
    Copy,
}

/// Reads the first thing that a client sends, and not a byte more.
pub async fn opening(stream: &mut (impl AsyncRead + Unpin)) -> Result<Opening, Fault> {
    let length = stream.read_u32().await? as usize;
    if !(8..=STRANGER_BYTES_MAX).contains(&length) {
        return Err(Fault::TooLong { bytes: length, bytes_max: STRANGER_BYTES_MAX });
    }
    let mut body = vec![0u8; length - 4];
    stream.read_exact(&mut body).await?;
    let mut body = Body(Bytes::from(body));
    match body.unsigned()? {
        TLS => Ok(Opening::Tls),
        GSS => Ok(Opening::Gss),
        CANCEL => {
            let process_id = body.unsigned()? as i32;
            Ok(Opening::Cancel { process_id, key: body.0 })
        }
        version => {
            let version = ((version >> 16) as u16, version as u16);
            let mut parameters = BTreeMap::new();
            loop {
                let name = body.text()?;
                if name.is_empty() {
                    return Ok(Opening::Session { version, parameters });
                }
                parameters.insert(name, body.text()?);
            }
        }
    }
}

/// A client's messages.
pub struct Input<R> {
    stream: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Input<R> {
    /// Over a stream from which the opening has been read.
    pub fn new(stream: R) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next message.
    pub async fn message(&mut self, bytes_max: usize) -> Result<Message, Fault> {
        loop {
            if let Some(header) = self.buffer.first_chunk::<5>() {
                let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
                let bytes = length as usize;
                if bytes < 4 {
                    return Err(Fault::Malformed("a message is shorter than its own length"));
                }
                if bytes > bytes_max {
                    return Err(Fault::TooLong { bytes, bytes_max });
                }
                if self.buffer.len() > bytes {
                    let kind = header[0];
                    self.buffer.advance(5);
                    let body = self.buffer.split_to(bytes - 4).freeze();
                    return message(kind, body);
                }
                self.buffer.reserve(bytes + 1 - self.buffer.len());
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(Fault::Gone);
            }
        }
    }

    /// Returns when the client is gone. What it sends meanwhile is kept, up to a limit.
    pub async fn gone(&mut self) {
        while self.buffer.len() < AHEAD_BYTES_MAX {
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        std::future::pending().await
    }
}

fn message(kind: u8, body: Bytes) -> Result<Message, Fault> {
    let mut body = Body(body);
    let message = match kind {
        b'Q' => Message::Query(body.text()?),
        b'P' => Message::Parse {
            name: body.text()?,
            text: body.text()?,
            types: body.list(Body::unsigned)?,
        },
        b'B' => Message::Bind {
            portal: body.text()?,
            statement: body.text()?,
            formats: body.list(Body::short)?,
            values: body.list(Body::value)?,
            results: body.list(Body::short)?,
        },
        b'D' => Message::Describe { portal: body.portal()?, name: body.text()? },
        b'C' => Message::Close { portal: body.portal()?, name: body.text()? },
        b'E' => Message::Execute { portal: body.text()?, rows_max: body.unsigned()? },
        b'p' => Message::Password(body.text()?),
        b'H' => Message::Flush,
        b'S' => Message::Sync,
        b'X' => Message::Terminate,
        b'd' | b'c' | b'f' => return Ok(Message::Copy),
        _ => return Err(Fault::Malformed("a message of an unknown kind")),
    };
    match body.0.is_empty() {
        true => Ok(message),
        false => Err(Fault::Malformed("a message is longer than what it holds")),
    }
}

/// The bytes of a message; each step checks that they suffice.
struct Body(Bytes);

const SHORT: Fault = Fault::Malformed("a message ends too early");

impl Body {
    fn unsigned(&mut self) -> Result<u32, Fault> {
        self.0.try_get_u32().map_err(|_| SHORT)
    }

    fn short(&mut self) -> Result<i16, Fault> {
        self.0.try_get_i16().map_err(|_| SHORT)
    }

    fn text(&mut self) -> Result<String, Fault> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(SHORT)?;
        let text = self.0.split_to(end);
        self.0.advance(1);
        let text = std::str::from_utf8(&text);
        text.map(str::to_owned).map_err(|_| Fault::Malformed("a text is not UTF-8"))
    }

    fn portal(&mut self) -> Result<bool, Fault> {
        match self.0.try_get_u8() {
            Ok(b'P') => Ok(true),
            Ok(b'S') => Ok(false),
            _ => Err(Fault::Malformed("neither a portal nor a statement is meant")),
        }
    }

    fn value(&mut self) -> Result<Option<Bytes>, Fault> {
        let length = self.unsigned()? as i32;
        if length < 0 {
            return Ok(None);
        }
        let length = length as usize;
        if length > self.0.len() {
            return Err(SHORT);
        }
        Ok(Some(self.0.split_to(length)))
    }

    fn list<T>(&mut self, item: fn(&mut Self) -> Result<T, Fault>) -> Result<Vec<T>, Fault> {
        let count = self.short()? as u16 as usize;
        // An item has at least two bytes: a count that cannot be true reserves nothing.
        let mut items = Vec::with_capacity(count.min(self.0.len() / 2));
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Result<Message, Fault> {
        Input::new(bytes).message(1_000).await
    }

    fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u32 + 4).to_be_bytes();
        [&[kind][..], &length, body].concat()
    }

    #[tokio::test]
    async fn messages_are_read() {
        let message = read(&framed(b'Q', b"SELECT 1\0")).await.unwrap();
        assert_eq!(message, Message::Query("SELECT 1".into()));
        let body = b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\0";
        let Message::Bind { values, formats, .. } = read(&framed(b'B', body)).await.unwrap() else {
            panic!("no bind")
        };
        assert_eq!((values, formats), (vec![Some(Bytes::from("x")), None], vec![1]));
    }

    #[tokio::test]
    async fn malformed_messages_are_faults() {
        for bad in [
            framed(b'Q', b"SELECT 1"),
            framed(b'Q', b"a\0b\0"),
            framed(b'Q', b"\xff\0"),
            framed(b'?', b""),
            framed(b'D', b"X\0"),
            framed(b'E', b"\0\0"),
            framed(b'B', b"\0\0\xff\xff"),
            framed(b'B', b"\0\0\0\0\0\x01\x7f\xff\xff\xff"),
            vec![b'Q', 0, 0, 0, 1],
        ] {
            assert!(matches!(read(&bad).await, Err(Fault::Malformed(_))), "{bad:?}");
        }
        let long = read(&[b'Q', 0x7f, 0xff, 0xff, 0xff]).await;
        assert!(matches!(long, Err(Fault::TooLong { .. })));
        assert!(matches!(read(b"Q\0\0").await, Err(Fault::Gone)));
    }

    #[tokio::test]
    async fn openings_are_read() {
        let mut tls = &[0, 0, 0, 8, 4, 210, 22, 47][..];
        assert_eq!(opening(&mut tls).await.unwrap(), Opening::Tls);
        let body = b"\0\x03\0\0user\0ada\0\0";
        let bytes = [&(body.len() as u32 + 4).to_be_bytes()[..], body].concat();
        let Opening::Session { version, parameters } = opening(&mut &bytes[..]).await.unwrap()
        else {
            panic!("no session")
        };
        assert_eq!((version, parameters["user"].as_str()), ((3, 0), "ada"));
        for bad in [&[0xff, 0xff, 0xff, 0xff][..], &[0, 0, 0, 4], b"\0\0\0\x0a\0\x03\0\0us"] {
            assert!(opening(&mut &bad[..]).await.is_err());
        }
    }
}
