//! Listening, TLS, stopping.

use std::time::Duration;

use attune::server::flight::{FlightOptions, bind};
use attune::server::tls::Tls;
use futures::StreamExt;
use tonic::Code;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use super::support::{Client, certificate, endless, options, rows, start, start_with, status};

#[tokio::test]
async fn passwords_and_rows_travel_under_tls() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let (files, certificate_pem) = certificate(folder.path(), "localhost");
    let tls = Tls::open(files).unwrap();
    let server = start_with(FlightOptions { tls: Some(tls), ..options() }).await;
    let trusting = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(certificate_pem))
        .domain_name("localhost");
    let address = format!("https://{}", server.address);
    let endpoint = Endpoint::from_shared(address.clone()).unwrap();
    let channel = endpoint.clone().tls_config(trusting).unwrap().connect().await.unwrap();
    let mut client = Client::new(channel);
    client.handshake("ada", "ada-secret").await.unwrap();
    assert_eq!(rows(&mut client, "SELECT 1").await, ["1"]);

    let doubting = ClientTlsConfig::new().domain_name("localhost");
    assert!(endpoint.tls_config(doubting).unwrap().connect().await.is_err());
    let plain = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    if let Ok(channel) = plain.connect().await {
        assert!(Client::new(channel).handshake("ada", "ada-secret").await.is_err());
    }
}

#[tokio::test]
async fn a_bad_certificate_and_a_taken_address_are_errors() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let server = start().await;
    let taken = FlightOptions { address: server.address, ..options() };
    let error = bind(server.engine.clone(), taken).await.err().unwrap();
    assert!(error.to_string().contains("cannot listen"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let (files, _) = certificate(folder.path(), "localhost");
    std::fs::write(&files.certificate, "no certificate").unwrap();
    assert!(Tls::open(files).is_err());
}

#[tokio::test]
async fn a_stopping_server_lets_a_statement_finish() {
    let server = start_with(FlightOptions { drain: Duration::from_secs(30), ..options() }).await;
    let mut client = server.login("ada").await;
    let info = client.execute(endless(5), None).await.unwrap();
    let mut stream = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    let mut count = stream.next().await.unwrap().unwrap().num_rows();
    server.shutdown.cancel();
    while let Some(batch) = stream.next().await {
        count += batch.unwrap().num_rows();
    }
    assert_eq!(count, 100_000);
    drop((stream, client));
}

#[tokio::test]
async fn a_statement_that_outlasts_the_drain_ends_with_an_error() {
    let mut server = start().await;
    let mut client = server.login("ada").await;
    let info = client.execute(endless(12), None).await.unwrap();
    let mut stream = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    server.shutdown.cancel();
    let end = loop {
        match stream.next().await {
            Some(Ok(_)) => {}
            other => break other.unwrap().unwrap_err(),
        }
    };
    assert_eq!(status(end).code(), Code::Cancelled);
    drop((stream, client));
    (&mut server.ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_statement() {
    let server = start().await;
    let mut client = server.login("ada").await;
    let info = client.execute(endless(12), None).await.unwrap();
    let mut stream = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    drop(stream);
    assert_eq!(rows(&mut client, "SELECT 1").await, ["1"]);
}
