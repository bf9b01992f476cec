//! What a bucket says of itself: whether it keeps what is overwritten and removed.
//!
//! `object_store` has no request for that, but it signs one as it signs its own, and has the client
//! that it is sent with.

use std::time::Duration;

use object_store::ClientOptions;
use object_store::aws::{AmazonS3, AwsAuthorizer};
use object_store::client::{
    HttpConnector, HttpError, HttpRequest, HttpRequestBody, HttpResponse, ReqwestConnector,
};
use object_store::path::Path;
use object_store::signer::Signer;

use crate::error::{Error, Result, root_cause};

/// How often a bucket is asked that does not answer, or is busy.
const TRIES: u32 = 3;
/// How long until the second try; the third waits twice as long.
const PAUSE: Duration = Duration::from_millis(200);

/// What a bucket keeps of objects that are overwritten or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Versioning {
    /// Nothing.
    Off,
    /// Their earlier versions.
    Enabled,
    /// Every version that was written while it was enabled.
    Suspended,
    /// The bucket does not say; why, in words.
    Unknown(String),
}

/// What the bucket of the warehouse is called in [`Versioning::told`].
pub const WAREHOUSE_BUCKET: &str = "the warehouse's bucket";

impl Versioning {
    /// What whoever looks after a bucket has to know of it, in a sentence that calls it `bucket`.
    pub fn told(&self, bucket: &str) -> Option<String> {
        Some(match self {
            Self::Off => return None,
            Self::Enabled => {
                format!("{bucket} keeps earlier versions of objects: remove them there")
            }
            Self::Suspended => format!(
                "versioning of {bucket} is suspended, which keeps versions of objects that were \
                 written before: remove them there"
            ),
            Self::Unknown(reason) => {
                format!("whether {bucket} keeps earlier versions of objects is not known: {reason}")
            }
        })
    }

    /// The same where an object of the bucket may have been seen to have a version: then the bucket
    /// keeps them, whatever it says.
    pub(crate) fn or_seen(self, is_seen: bool) -> Self {
        match self {
            Self::Off | Self::Unknown(_) if is_seen => Self::Enabled,
            said => said,
        }
    }
}

/// The settings of a bucket, asked with the credentials of its store.
#[derive(Debug)]
pub struct BucketSettings {
    /// `s3://bucket`.
    url: String,
    store: AmazonS3,
    region: String,
    client: ClientOptions,
}

impl BucketSettings {
    /// The settings of the bucket that `store` is of, in `region`.
    pub fn new(url: String, store: AmazonS3, region: String, client: ClientOptions) -> Self {
        Self { url, store, region, client }
    }

    /// Whether the bucket keeps earlier versions: S3's GetBucketVersioning.
    ///
    /// # Errors
    /// When the bucket cannot be reached. One that refuses to tell is no error.
    pub async fn versioning(&self) -> Result<Versioning> {
        let connected = ReqwestConnector::default().connect(&self.client);
        let client = connected.map_err(|error| Error::store(&*self.url, &error))?;
        let mut tried = 1;
        loop {
            match client.execute(self.request().await?).await {
                Ok(answer) if tried < TRIES && is_busy(answer.status().as_u16()) => {}
                Ok(answer) => return self.told_by(answer).await,
                Err(error) if tried == TRIES => return Err(self.unreachable(&error)),
                Err(_) => {}
            }
            tokio::time::sleep(PAUSE * tried).await;
            tried += 1;
        }
    }

    async fn request(&self) -> Result<HttpRequest> {
        let wrong = |error| Error::store(&*self.url, &error);
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        let method = request.method().clone();
        // The store tells where its bucket is, with a signature of another request.
        let mut url =
            self.store.signed_url(method, &Path::ROOT, Duration::ZERO).await.map_err(wrong)?;
        url.set_query(Some("versioning"));
        *request.uri_mut() = url.as_str().parse().map_err(|_| Error::Location {
            url: self.url.clone(),
            reason: "its endpoint makes no URL".into(),
        })?;
        let credential = self.store.credentials().get_credential().await.map_err(wrong)?;
        AwsAuthorizer::new(&credential, "s3", &self.region).authorize(&mut request, None);
        Ok(request)
    }

    async fn told_by(&self, answer: HttpResponse) -> Result<Versioning> {
        let status = answer.status();
        if !status.is_success() {
            let reason = format!("it answers {status} to GetBucketVersioning");
            return Ok(Versioning::Unknown(reason));
        }
        let body = answer.into_body().bytes().await.map_err(|error| self.unreachable(&error))?;
        Ok(read(&String::from_utf8_lossy(&body)))
    }

    fn unreachable(&self, error: &HttpError) -> Error {
        Error::Store { url: self.url.clone(), reason: root_cause(error), denied: false }
    }
}

/// Whether the same request may be answered a little later.
fn is_busy(status: u16) -> bool {
    matches!(status, 429 | 500 | 502 | 503 | 504)
}

/// A `VersioningConfiguration`, which has a `Status` once versioning was turned on.
fn read(answer: &str) -> Versioning {
    let status = answer.split_once("<Status>").and_then(|(_, rest)| rest.split_once("</Status>"));
    match status.map(|(status, _)| status.trim()) {
        Some("Enabled") => Versioning::Enabled,
        Some("Suspended") => Versioning::Suspended,
        None if answer.contains("<VersioningConfiguration") => Versioning::Off,
        _ => Versioning::Unknown("its answer to GetBucketVersioning cannot be read".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_nothing_else_is_taken_for_one() {
        let answer = |inner: &str| {
            format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<VersioningConfiguration \
                 xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{inner}</VersioningConfiguration>"
            )
        };
        for (inner, versioning) in [
            ("", Versioning::Off),
            ("<Status>Enabled</Status>", Versioning::Enabled),
            ("<Status>Suspended</Status><MfaDelete>Disabled</MfaDelete>", Versioning::Suspended),
            (
                "\n  <MfaDelete>Enabled</MfaDelete>\n  <Status> Enabled </Status>\n",
                Versioning::Enabled,
            ),
        ] {
            assert_eq!(read(&answer(inner)), versioning, "{inner}");
        }
        assert_eq!(read("<VersioningConfiguration/>"), Versioning::Off);
        for other in [&*answer("<Status>Paused</Status>"), "<html>sign in</html>", ""] {
            assert!(matches!(read(other), Versioning::Unknown(_)), "{other}");
        }
    }

    #[test]
    fn whatever_may_be_left_is_told() {
        assert_eq!(Versioning::Off.told(WAREHOUSE_BUCKET), None);
        let unknown = Versioning::Unknown("it answers 403 Forbidden".into());
        for (versioning, word) in
            [(Versioning::Enabled, "keeps"), (Versioning::Suspended, "suspended"), (unknown, "403")]
        {
            for bucket in [WAREHOUSE_BUCKET, "bucket s3://crm"] {
                let told = versioning.told(bucket).unwrap();
                assert!(told.contains(word) && told.contains(bucket), "{told}");
            }
        }
    }

    #[test]
    fn what_was_seen_counts_before_what_a_bucket_says() {
        let unknown = || Versioning::Unknown("it answers 403 Forbidden".into());
        for said in [Versioning::Off, unknown()] {
            assert_eq!(said.clone().or_seen(false), said);
            assert_eq!(said.or_seen(true), Versioning::Enabled);
        }
        assert_eq!(Versioning::Suspended.or_seen(true), Versioning::Suspended);
    }
}
