//! Actions: prepare and close, cancel and renew, session options.

use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest, Any, Command, ProstMessageExt,
};
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus,
    FlightEndpoint, FlightInfo, RenewFlightEndpointRequest,
};
use bytes::Bytes;
use prost::Message;
use tonic::Status;

use super::messages::{CloseSessionResult, SESSION_CLOSED, decode_bare};
use super::options;
use super::parts;
use super::service::State;
use super::sessions::Caller;
use super::statements::refuse_transaction;
use super::status;

const ACTIONS: [(&str, &str); 8] = [
    ("CreatePreparedStatement", "Plans a statement and keeps the plan."),
    ("ClosePreparedStatement", "Forgets a prepared statement."),
    ("CancelQuery", "Cancels a statement, waiting or running, by its FlightInfo."),
    ("CancelFlightInfo", "Cancels a statement, waiting or running, by its FlightInfo."),
    ("RenewFlightEndpoint", "Keeps a ticket that nobody has fetched for its whole time again."),
    ("SetSessionOptions", "Sets settings of the session; SHOW ALL lists them."),
    ("GetSessionOptions", "Gives the session's settings."),
    ("CloseSession", "Ends the session and what it left running."),
];

/// The actions that the server has.
pub fn list() -> Vec<ActionType> {
    ACTIONS
        .iter()
        .map(|(name, description)| ActionType {
            r#type: (*name).to_owned(),
            description: (*description).to_owned(),
        })
        .collect()
}

/// Whether an action forgets a prepared statement. Where the session has ended, as by a change of
/// the user's own password, there is none to forget.
pub fn forgets_prepared(action: &Action) -> bool {
    action.r#type == "ClosePreparedStatement"
}

/// Does an action; gives the bodies of its results.
pub async fn run(state: &State, caller: &Caller, action: &Action) -> Result<Vec<Bytes>, Status> {
    match action.r#type.as_str() {
        "CreatePreparedStatement" => {
            let request: ActionCreatePreparedStatementRequest = unpack(&action.body)?;
            refuse_transaction(request.transaction_id.as_ref())?;
            let result = state.prepared.create(caller, &request.query).await?;
            Ok(vec![result.into_body()])
        }
        "ClosePreparedStatement" => {
            let request: ActionClosePreparedStatementRequest = unpack(&action.body)?;
            state.prepared.close(caller, &request.prepared_statement_handle);
            Ok(Vec::new())
        }
        "CancelQuery" => cancel_query(state, caller, &action.body).await,
        "CancelFlightInfo" => cancel_flight_info(state, caller, &action.body).await,
        "RenewFlightEndpoint" => renew(state, caller, &action.body).await,
        "SetSessionOptions" => Ok(vec![options::set(caller, &action.body).await?]),
        "GetSessionOptions" => Ok(vec![options::get(&caller.client)]),
        "CloseSession" => {
            close_session(state, caller).await?;
            Ok(vec![encoded(&CloseSessionResult { status: SESSION_CLOSED })])
        }
        "BeginTransaction" | "EndTransaction" | "BeginSavepoint" | "EndSavepoint" => {
            Err(no_transactions())
        }
        "CreatePreparedSubstraitPlan" => Err(no_substrait()),
        other => Err(status::unsupported(
            &format!("there is no action {other:?}"),
            "ListActions names those there are",
        )),
    }
}

/// What a client that asks for a transaction is told.
pub fn no_transactions() -> Status {
    status::unsupported("there are no transactions", "each statement commits by itself")
}

/// What a client that sends a Substrait plan is told.
pub fn no_substrait() -> Status {
    status::unsupported("Substrait plans are not read", "send the statement as SQL")
}

fn unpack<M: ProstMessageExt>(body: &Bytes) -> Result<M, Status> {
    let wrong = || status::malformed("the action's body is not the message that its type names");
    let any = Any::decode(body.clone()).map_err(|_| wrong())?;
    any.unpack().map_err(|_| wrong())?.ok_or_else(wrong)
}

fn encoded(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

async fn cancel_query(state: &State, caller: &Caller, body: &Bytes) -> Result<Vec<Bytes>, Status> {
    let request: ActionCancelQueryRequest = unpack(body)?;
    let info = FlightInfo::decode(request.info)
        .map_err(|_| status::malformed("the query to cancel is no FlightInfo"))?;
    // The numbers of both cancel results' enumerations are the same.
    let result = cancel(state, caller, &info).await? as i32;
    Ok(vec![encoded(&ActionCancelQueryResult { result }.as_any())])
}

async fn cancel_flight_info(
    state: &State,
    caller: &Caller,
    body: &Bytes,
) -> Result<Vec<Bytes>, Status> {
    let request: CancelFlightInfoRequest = decode_bare(body, "CancelFlightInfoRequest")?;
    let info = request.info.ok_or_else(|| status::malformed("there is no FlightInfo to cancel"))?;
    let status = cancel(state, caller, &info).await? as i32;
    Ok(vec![encoded(&CancelFlightInfoResult { status })])
}

async fn cancel(state: &State, caller: &Caller, info: &FlightInfo) -> Result<CancelStatus, Status> {
    let tickets = info.endpoint.iter().filter_map(|endpoint| endpoint.ticket.as_ref());
    let mut tickets: Vec<&Bytes> = tickets.map(|ticket| &ticket.ticket).collect();
    // While a statement is polled it has no endpoint; its descriptor is the ticket.
    if let (true, Some(descriptor)) = (tickets.is_empty(), &info.flight_descriptor) {
        tickets.push(&descriptor.cmd);
    }
    let mut outcome = None;
    for ticket in tickets {
        let command = Any::decode(ticket.clone()).ok().map(Command::try_from);
        match command {
            Some(Ok(Command::TicketStatementQuery(query))) => {
                state.statements.cancel(caller.client.owner(), &query.statement_handle)?;
                outcome = Some(CancelStatus::Cancelled);
            }
            Some(Ok(Command::Unknown(any))) if parts::signed(&any).is_some() => {
                let ended = parts::cancel(state, caller, &any.value).await?;
                let status =
                    if ended { CancelStatus::Cancelled } else { CancelStatus::NotCancellable };
                if outcome != Some(CancelStatus::Cancelled) {
                    outcome = Some(status);
                }
            }
            _ => outcome = outcome.or(Some(CancelStatus::NotCancellable)),
        }
    }
    outcome.ok_or_else(|| status::malformed("the FlightInfo has no ticket"))
}

/// The endpoint with its new end. A ticket that is a metadata command has none: it always holds.
async fn renew(state: &State, caller: &Caller, body: &Bytes) -> Result<Vec<Bytes>, Status> {
    let request: RenewFlightEndpointRequest = decode_bare(body, "RenewFlightEndpointRequest")?;
    let endpoint = request.endpoint.unwrap_or_default();
    let Some(ticket) = &endpoint.ticket else {
        return Err(status::malformed("there is no endpoint with a ticket to renew"));
    };
    let malformed = || status::malformed("the endpoint's ticket is none of this server");
    let any = Any::decode(ticket.ticket.clone()).map_err(|_| malformed())?;
    let expires = match Command::try_from(any).map_err(|_| malformed())? {
        Command::TicketStatementQuery(query) => {
            Some(state.statements.renew(caller.client.owner(), &query.statement_handle)?)
        }
        Command::CommandPreparedStatementQuery(query) => {
            Some(state.prepared.renew(caller, &query.prepared_statement_handle)?)
        }
        Command::Unknown(any) => {
            let signed = parts::signed(&any).ok_or_else(malformed)?;
            let (ticket, expires) = parts::renew(state, caller, signed).await?;
            let (ticket, expiration_time) = (Some(ticket), Some(expires.into()));
            let renewed = FlightEndpoint { ticket, expiration_time, ..endpoint };
            return Ok(vec![encoded(&renewed)]);
        }
        _ => None,
    };
    let renewed = FlightEndpoint { expiration_time: expires.map(Into::into), ..endpoint };
    Ok(vec![encoded(&renewed)])
}

async fn close_session(state: &State, caller: &Caller) -> Result<(), Status> {
    let id = caller.lasting()?.session.id();
    state.statements.forget_session(id);
    state.prepared.forget_session(id);
    state.sessions.close(caller).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_names_what_run_does() {
        let names: Vec<String> = list().into_iter().map(|action| action.r#type).collect();
        for name in ["CreatePreparedStatement", "CancelFlightInfo", "CloseSession"] {
            assert!(names.iter().any(|listed| listed == name));
        }
        assert!(names.iter().all(|name| !name.contains("Transaction")));
    }

    #[test]
    fn a_body_of_another_type_is_refused() {
        let wrong = ActionClosePreparedStatementRequest::default().as_any().encode_to_vec();
        for body in [Bytes::from(wrong), Bytes::from_static(b"\xff"), Bytes::new()] {
            assert!(unpack::<ActionCancelQueryRequest>(&body).is_err());
        }
    }
}
