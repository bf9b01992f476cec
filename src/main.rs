//! The `attune` program: arguments in, exit code out.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use attune::cli::{self, Arguments, Context};
use clap::Parser;

/// Plans nest deeply, and DataFusion's planner recurses on them.
const STACK_BYTES: usize = 8 << 20;

/// An operator may compute for seconds without a pause, on as many threads as there are cores. The
/// others keep time limits, KILL and the next client's question going meanwhile.
const THREADS_PER_CORE: usize = 6;
/// A thread that heard of sockets and timers and then computes hands that to no other: all of them
/// may sleep meanwhile. One is woken this often, and goes on listening.
const PULSE: Duration = Duration::from_millis(25);

fn main() -> ExitCode {
    // Several crates speak TLS; all are to use one provider. It fails only if one is installed.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return called_wrongly(&error),
    };
    let context = Context::of_process();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(THREADS_PER_CORE * cores)
        .thread_stack_size(STACK_BYTES)
        .build();
    let result = match runtime {
        Ok(runtime) => {
            let handle = runtime.handle().clone();
            let pulse = std::thread::Builder::new().name("pulse".into());
            let pulse = pulse.spawn(move || {
                loop {
                    std::thread::sleep(PULSE);
                    handle.spawn(std::future::ready(()));
                }
            });
            if let Err(error) = pulse {
                return ExitCode::from(cli::exit_code(Err(cli::runtime_error(error)), &context));
            }
            let result = runtime.block_on(cli::run(arguments, &context));
            // A statement that ignores cancellation must not keep the process alive, so nobody
            // waits for threads: they end with the process. To detach threads that are about to
            // end is not safe with every C library.
            std::mem::forget(runtime);
            result
        }
        Err(error) => Err(cli::runtime_error(error)),
    };
    ExitCode::from(cli::exit_code(result, &context))
}

/// Shows what clap has to say; `--help` and `--version` are no errors.
fn called_wrongly(error: &clap::Error) -> ExitCode {
    let code = u8::try_from(error.exit_code()).unwrap_or(2);
    let text = error.render().ansi().to_string();
    let plain = error.render().to_string();
    let context = Context::of_process();
    let written = if error.use_stderr() {
        let text = if context.screen.error_colours() { text } else { plain };
        std::io::stderr().write_all(text.as_bytes())
    } else {
        let text = if context.screen.output_colours() { text } else { plain };
        std::io::stdout().write_all(text.as_bytes())
    };
    // A closed pipe (`attune --help | head -1`) is no failure.
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::from(code),
    }
}
