//! What functions make of little is charged to the statement while it is there.
//!
//! DataFusion charges what its operators keep, not what a function returns, so forty calls of
//! `repeat('x', 200000000)` beside each other would be eight gigabytes that nobody counts. The
//! statement's memory is found in the options that each call is given. What a call on rows makes
//! is charged until its last copy is dropped: the reservation goes with the buffer. A constant
//! becomes part of the plan and is charged as long as the plan is.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{ArrayData, ArrayRef, make_array};
use arrow::buffer::Buffer;
use arrow::datatypes::DataType;
use bytes::Bytes;
use datafusion::common::config::{ConfigEntry, ConfigExtension, ConfigOptions, ExtensionOptions};
use datafusion::common::plan_err;
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::ColumnarValue;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use udfs::fuzzy::stop::Stop;

use crate::error::Error;

/// What is smaller is not charged: batches of ordinary texts.
const CHARGED_BYTES_MIN: u64 = 1024 * 1024;

/// Where a statement's functions take memory from.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pool: Arc<dyn MemoryPool>,
    constants: Arc<Mutex<Vec<MemoryReservation>>>,
    cancel: CancellationToken,
}

impl Made {
    /// From this pool, for as long as the statement is not cancelled.
    pub(crate) fn new(pool: Arc<dyn MemoryPool>, cancel: &CancellationToken) -> Self {
        Self { pool, constants: Arc::default(), cancel: cancel.clone() }
    }

    fn keep(&self, made: ColumnarValue, reservation: MemoryReservation) -> Result<ColumnarValue> {
        match made {
            ColumnarValue::Scalar(constant) => {
                self.constants.lock().push(reservation);
                Ok(ColumnarValue::Scalar(constant))
            }
            ColumnarValue::Array(array) => Ok(ColumnarValue::Array(held(&array, reservation)?)),
        }
    }
}

/// Charges what functions make in this state to a pool, and lets those that take long hear of the
/// statement's end.
pub(crate) fn charge_to(
    state: &mut SessionState,
    pool: Arc<dyn MemoryPool>,
    cancel: &CancellationToken,
) {
    state.config_mut().options_mut().extensions.insert(Made::new(pool, cancel));
    end_with(state, cancel);
}

/// Lets the functions that compare texts in this state hear of a statement's end.
pub(crate) fn end_with(state: &mut SessionState, cancel: &CancellationToken) {
    let cancel = cancel.clone();
    let stop = Stop::when(move || cancel.is_cancelled());
    state.config_mut().options_mut().extensions.insert(stop);
    let options = Arc::clone(state.config_options());
    state.execution_props_mut().config_options = Some(options);
}

/// Makes what takes so many bytes, charged to the statement whose options these are.
///
/// # Errors
/// When the statement may not have so much, or what `make` fails with.
pub(crate) fn charged(
    options: &ConfigOptions,
    function: &str,
    bytes: u64,
    make: impl FnOnce() -> Result<ColumnarValue>,
) -> Result<ColumnarValue> {
    let made = match options.extensions.get::<Made>() {
        Some(made) if bytes >= CHARGED_BYTES_MIN => made,
        _ => return make(),
    };
    let reservation = MemoryConsumer::new(function).register(&made.pool);
    reservation.try_grow(usize::try_from(bytes).unwrap_or(usize::MAX))?;
    made.keep(make()?, reservation)
}

/// Ends a call that takes long.
///
/// # Errors
/// When the statement whose options these are was cancelled.
pub(crate) fn check_cancelled(options: &ConfigOptions) -> Result<()> {
    match options.extensions.get::<Made>() {
        Some(made) if made.cancel.is_cancelled() => Err(Error::Cancelled.into()),
        _ => Ok(()),
    }
}

/// A buffer with what it is charged to.
struct Held {
    buffer: Buffer,
    _reservation: MemoryReservation,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.buffer.as_slice()
    }
}

fn held(array: &ArrayRef, reservation: MemoryReservation) -> Result<ArrayRef> {
    Ok(make_array(held_data(array.to_data(), reservation)?))
}

/// The data with the reservation at its largest buffer; of a list, at that of its values.
fn held_data(data: ArrayData, reservation: MemoryReservation) -> Result<ArrayData> {
    if let (DataType::List(_) | DataType::LargeList(_), [values]) =
        (data.data_type(), data.child_data())
    {
        let values = held_data(values.clone(), reservation)?;
        return Ok(data.into_builder().child_data(vec![values]).build()?);
    }
    let mut buffers = data.buffers().to_vec();
    if let Some(largest) = buffers.iter_mut().max_by_key(|buffer| buffer.len()) {
        let held = Held { buffer: largest.clone(), _reservation: reservation };
        *largest = Buffer::from(Bytes::from_owner(held));
    }
    Ok(data.into_builder().buffers(buffers).build()?)
}

impl ConfigExtension for Made {
    const PREFIX: &'static str = "made";
}

impl ExtensionOptions for Made {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, _value: &str) -> Result<()> {
        plan_err!("there is no setting {key}")
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray, Int64Array, ListArray, StringArray, StringViewArray};
    use arrow::datatypes::Int64Type;
    use datafusion::common::ScalarValue;
    use datafusion::execution::memory_pool::GreedyMemoryPool;
    use datafusion::execution::session_state::SessionStateBuilder;

    use super::*;

    const BYTES: u64 = 4 * CHARGED_BYTES_MIN;

    fn options() -> (Arc<dyn MemoryPool>, ConfigOptions) {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(BYTES as usize));
        let mut options = ConfigOptions::new();
        options.extensions.insert(Made::new(Arc::clone(&pool), &CancellationToken::new()));
        (pool, options)
    }

    #[test]
    fn rows_are_charged_until_the_last_of_them_is_dropped() {
        let arrays: [ArrayRef; 3] = [
            Arc::new(StringArray::from(vec![Some("a text of a row"), None, Some("b")])),
            Arc::new(StringViewArray::from(vec![Some("longer than twelve"), None, Some("ab")])),
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1), None])])),
        ];
        for array in arrays {
            let (pool, options) = options();
            let made = || charged(&options, "f", BYTES, || Ok(Arc::clone(&array).into()));
            let ColumnarValue::Array(first) = made().unwrap() else { panic!("an array") };
            assert_eq!(&first, &array);
            let refused = made().unwrap_err().to_string();
            assert!(refused.contains("Resources exhausted"), "{refused}");
            let kept = match first.as_list_opt::<i32>() {
                Some(list) => Arc::clone(list.values()),
                None => first.slice(0, 1),
            };
            drop(first);
            assert_eq!(pool.reserved() as u64, BYTES);
            drop(kept);
            assert_eq!(pool.reserved(), 0);
        }
    }

    #[test]
    fn functions_hear_of_the_end_of_the_statement() {
        let (pool, _) = options();
        let [first, second] = [CancellationToken::new(), CancellationToken::new()];
        let mut state = SessionStateBuilder::new().build();
        charge_to(&mut state, pool, &first);
        let mut other = state.clone();
        end_with(&mut other, &second);
        for (state, cancel) in [(&state, &first), (&other, &second)] {
            let of_constants = state.execution_props().config_options.clone().unwrap();
            let stops = [Stop::of(state.config_options()), Stop::of(&of_constants)];
            assert!(stops.iter().all(|stop| !stop.is_set()));
            cancel.cancel();
            assert!(stops.iter().all(Stop::is_set));
        }
    }

    #[test]
    fn constants_are_charged_with_the_plan_and_small_things_never() {
        let (pool, options) = options();
        let constant = || Ok(ScalarValue::from("text").into());
        charged(&options, "f", BYTES, constant).unwrap();
        charged(&options, "f", BYTES, constant).unwrap_err();
        assert_eq!(pool.reserved() as u64, BYTES);
        let small: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        charged(&options, "f", 8, || Ok(small.into())).unwrap();
        drop(options);
        assert_eq!(pool.reserved(), 0);
    }
}
