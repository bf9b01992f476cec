//! The most that any server of this kind can send here: one that has its answer ready.
//!
//! `attune wire ADDRESS ROWS` answers every query with rows that were made and encoded before: it
//! reads no file, decodes nothing and plans nothing, so what `attune client scan` gets from it is
//! the bound of the client, the protocol and the machine. `benches/peers/flight.py` asks it too.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::sql::server::FlightSqlService;
use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt, SqlInfo, TicketStatementQuery};
use arrow_flight::utils::batches_to_flight_data;
use arrow_flight::{FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use futures::stream::{self, StreamExt};
use prost::Message;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// Rows of a message, as DataFusion makes them.
const BATCH_ROWS: usize = 8192;

struct Wire {
    announced: FlightData,
    batch: FlightData,
    batches: usize,
}

/// Rows of the table that `flight.py` scans.
fn rows() -> RecordBatch {
    let numbers = || (0..BATCH_ROWS).map(|row| (row as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let shares = || Float64Array::from_iter_values(numbers().map(|number| number as f64));
    RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from_iter_values(numbers().map(|n| n as i64))) as ArrayRef),
        ("a", Arc::new(shares())),
        ("b", Arc::new(shares())),
        ("text", Arc::new(StringArray::from_iter_values(numbers().map(|n| format!("{n:016x}"))))),
    ])
    .unwrap()
}

#[tonic::async_trait]
impl FlightSqlService for Wire {
    type FlightService = Self;

    async fn get_flight_info_statement(
        &self,
        _query: CommandStatementQuery,
        descriptor: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let ticket = TicketStatementQuery { statement_handle: Default::default() };
        let ticket = Ticket::new(ticket.as_any().encode_to_vec());
        let info = FlightInfo::new()
            .with_endpoint(FlightEndpoint::new().with_ticket(ticket))
            .with_descriptor(descriptor.into_inner());
        Ok(Response::new(info))
    }

    async fn do_get_statement(
        &self,
        _ticket: TicketStatementQuery,
        _request: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        let batches = stream::iter(vec![self.batch.clone(); self.batches]);
        Ok(Response::new(stream::iter([self.announced.clone()]).chain(batches).map(Ok).boxed()))
    }

    async fn register_sql_info(&self, _id: i32, _info: &SqlInfo) {}
}

/// Serves until it is ended.
pub fn run() {
    let arguments: Vec<String> = std::env::args().skip(2).collect();
    let [address, rows_wanted] = arguments.as_slice() else { panic!("wire ADDRESS ROWS") };
    let batch = rows();
    let messages = batches_to_flight_data(&batch.schema(), vec![batch]).unwrap();
    let [announced, batch] = messages.try_into().unwrap();
    let batches = rows_wanted.parse::<usize>().unwrap().div_ceil(BATCH_ROWS);
    let service = FlightServiceServer::new(Wire { announced, batch, batches });
    let server = Server::builder().add_service(service).serve(address.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(server).unwrap();
}
