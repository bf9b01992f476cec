//! Matrix factorization on Gowalla: seconds per iteration, top-20 for every user, Recall@20.
//!
//! `cargo bench --bench attune -- als [num_factors] [max_iterations] [name=value …]` with the names
//! `alpha`, `reg`, `nu`, `steps`, `scaling` (constant, count, frequency), `solver` (auto, cg,
//! cholesky, subspace), `block` and `nonnegative` (0 or 1); `RAYON_NUM_THREADS` sets the threads.
//! `sizes=1,10` trains on so many million generated interactions instead, a power law of users and
//! of items, and tells how the cost grows; the factors of the second size fit no cache.
//! Data: `../shared/data/gowalla`, or the folder in `GOWALLA`. Run the peers of
//! `../shared/peers/README.md` in the same minutes.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Float32Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use udfs::model::als::{AlsFactors, AlsOptions, Feedback, Scaling, Solver, train};
use udfs::model::random::mix;
use udfs::model::{
    AlsModel, Csr, Duplicates, Evaluation, IdIndex, Model, ModelParts, RecommendRequest,
    Recommender, Triplets,
};

/// Adds a file's rows to the dictionaries; rows with ids that `grow` forbids are left out.
fn read(path: &Path, users: &mut IdIndex, items: &mut IdIndex, grow: bool) -> Triplets {
    let mut cells = Triplets::default();
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    for batch in reader.build().unwrap() {
        let batch = batch.unwrap();
        let weights = arrow::compute::cast(batch.column(2), &DataType::Float32).unwrap();
        let weights = weights.as_primitive::<Float32Type>().values();
        let codes = |ids: &mut IdIndex, column: usize| -> Vec<Option<u32>> {
            let column = batch.column(column);
            match grow {
                true => ids.encode(column).unwrap().into_iter().map(Some).collect(),
                false => ids.lookup(column).unwrap(),
            }
        };
        let rows = codes(users, 0).into_iter().zip(codes(items, 1)).zip(weights);
        for ((user, item), &weight) in rows {
            if let Some((user, item)) = user.zip(item) {
                cells.push(user, item, weight, "weight").unwrap();
            }
        }
    }
    cells
}

fn options() -> AlsOptions {
    let arguments: Vec<String> = std::env::args().skip(2).collect();
    let mut numbers = arguments.iter().filter_map(|argument| argument.parse::<usize>().ok());
    let named = |name: &str| {
        arguments.iter().find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='))
    };
    let number = |name: &str| named(name).map(|value| value.parse::<f64>().unwrap());
    let usual = AlsOptions::default();
    AlsOptions {
        feedback: Feedback::Implicit,
        num_factors: numbers.next().unwrap_or(usual.num_factors),
        max_iterations: numbers.next().unwrap_or(usual.max_iterations),
        l2_reg: number("reg"),
        wals_alpha: number("alpha"),
        frequency_exponent: number("nu").unwrap_or(usual.frequency_exponent),
        cg_steps: number("steps").map_or(usual.cg_steps, |steps| steps as usize),
        regularization_scaling: match named("scaling") {
            Some("constant") => Some(Scaling::Constant),
            Some("count") => Some(Scaling::Count),
            Some(_) => Some(Scaling::Frequency),
            None => None,
        },
        solver: match named("solver") {
            Some("cg") => Solver::ConjugateGradient,
            Some("cholesky") => Solver::Cholesky,
            Some("subspace") => Solver::Subspace,
            _ => Solver::Auto,
        },
        block_size: number("block").map(|size| size as usize),
        non_negative: number("nonnegative") == Some(1.0),
        seed: 42,
        ..usual
    }
}

/// The median of an iteration's seconds, and the factors.
fn fit(training: &Csr, options: &AlsOptions) -> (f64, AlsFactors) {
    let mut seconds: Vec<f64> = vec![];
    let mut last = Instant::now();
    let mut progress = |progress: udfs::model::als::Progress| {
        if progress.loss.is_some() {
            seconds.push(last.elapsed().as_secs_f64());
            last = Instant::now();
        }
    };
    let factors = train(training, options, &mut progress, &AtomicBool::new(false)).unwrap();
    seconds.sort_by(f64::total_cmp);
    println!("{options:?}\n{:?}", options.resolve(training));
    let median = seconds[seconds.len() / 2];
    println!(
        "seconds/iteration min {:.4} median {median:.4}, loss {:.0}",
        seconds[0],
        factors.losses.last().unwrap()
    );
    (median, factors)
}

/// Distinct pairs of 40,000 users and 20,000 items a million, both by power laws.
fn generated(millions: usize) -> Csr {
    let (rows, users, items) = (millions * 1_000_000, millions * 40_000, millions * 20_000);
    let mut state = rows as u64;
    let mut uniform = || {
        state = mix(state);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    let mut pairs: Vec<u64> = vec![];
    while pairs.len() < rows {
        for _ in 0..(rows - pairs.len()) * 13 / 10 + 1000 {
            let user = (users as f64 * uniform().powi(2)) as u64;
            let item = (items as f64 * uniform().powi(3)) as u64;
            pairs.push(user * items as u64 + item);
        }
        pairs.sort_unstable();
        pairs.dedup();
    }
    // A part of the pairs, chosen and ordered at random.
    pairs.sort_unstable_by_key(|&pair| mix(pair));
    let mut cells = Triplets::default();
    for &pair in &pairs[..rows] {
        let (user, item) = ((pair / items as u64) as u32, (pair % items as u64) as u32);
        cells.push(user, item, 1.0 + (mix(!pair) % 5) as f32, "weight").unwrap();
    }
    cells.build(users, items, Duplicates::Sum).0
}

fn sizes(millions: &str) {
    let mut first: Option<(f64, usize)> = None;
    for millions in millions.split(',') {
        let training = generated(millions.parse().unwrap());
        let options = AlsOptions { max_iterations: 4, ..options() };
        let (seconds, _) = fit(&training, &options);
        let (base, cells) = *first.get_or_insert((seconds, training.cells()));
        let (times, larger) = (seconds / base, training.cells() / cells);
        println!("{millions} million: {times:.1} times the first, which is {larger} times smaller");
    }
}

/// Trains, recommends and evaluates.
pub fn run() {
    if let Some(millions) =
        std::env::args().find_map(|of| Some(of.strip_prefix("sizes=")?.to_owned()))
    {
        return sizes(&millions);
    }
    let folder = std::env::var("GOWALLA").unwrap_or_else(|_| {
        concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data/gowalla").to_owned()
    });
    let folder = Path::new(&folder);
    let start = Instant::now();
    let mut users = IdIndex::new("user_id", &DataType::Int32).unwrap();
    let mut items = IdIndex::new("item_id", &DataType::Int32).unwrap();
    let mut cells = read(&folder.join("train.parquet"), &mut users, &mut items, true);
    cells.recode(&users.sort().unwrap(), &items.sort().unwrap());
    let test = read(&folder.join("test.parquet"), &mut users, &mut items, false);
    let build = |cells: Triplets| cells.build(users.len(), items.len(), Duplicates::Sum).0;
    let (training, test) = (build(cells), build(test));
    println!(
        "read {:.3} s: {} + {}",
        start.elapsed().as_secs_f64(),
        training.cells(),
        test.cells()
    );
    let options = options();
    let (_, factors) = fit(&training, &options);
    let model = AlsModel::from_parts(ModelParts { users, items, factors, seen: training, options })
        .unwrap();
    let everyone: Vec<Option<u32>> = (0..model.user_ids().len() as u32).map(Some).collect();
    let request = RecommendRequest { top_k: 20, exclude_seen: true, include: None, exclude: None };
    let start = Instant::now();
    let lists = model.recommend(&everyone, &request);
    println!("top-20 of {} users: {:.3} s", lists.len(), start.elapsed().as_secs_f64());
    let start = Instant::now();
    for user in everyone.iter().take(1000) {
        model.recommend(std::slice::from_ref(user), &request);
    }
    println!("one user at a time: {:.3} ms", start.elapsed().as_secs_f64());
    println!("model {} MB", model.memory_bytes() >> 20);
    let (model, run) = (Model::from(model), AtomicBool::new(false));
    let start = Instant::now();
    let evaluation = Evaluation::of(&model, &test, 20, &run).unwrap();
    for metric in evaluation.measure(&|_| true, &run).unwrap() {
        println!("{:14} {:.4}   popularity {:.4}", metric.name, metric.value, metric.baseline);
    }
    println!("evaluation {:.3} s", start.elapsed().as_secs_f64());
}
