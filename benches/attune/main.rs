//! What Attune's speed is measured with, beside the same work without Attune.
//!
//! `cargo bench --bench attune -- als …` trains on Gowalla, `cargo bench --bench attune -- serving`
//! starts the real program and asks it over Flight SQL, `… -- client` asks any server, `… -- wire`
//! is the server that does nothing but send, `… -- pairs` compares texts.
//! `benches/README.md` has the figures.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a bench stops at once"
)]

mod als;
mod client;
mod pairs;
mod serving;
mod wire;

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("als") => als::run(),
        Some("serving") => serving::run(),
        Some("client") => client::run(),
        Some("pairs") => pairs::run(),
        Some("wire") => wire::run(),
        // Cargo passes flags of its own when it runs every bench.
        _ => println!("say which: als, serving, client, pairs, wire"),
    }
}
