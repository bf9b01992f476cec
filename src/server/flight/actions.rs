//! Actions: prepare and close, cancel, session options.

use std::collections::HashMap;

use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest, Any, Command, ProstMessageExt,
};
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightInfo,
};
use bytes::Bytes;
use catalog::Class;
use prost::Message;
use tonic::Status;

use super::messages::{
    CloseSessionResult, GetSessionOptionsResult, OptionError, OptionErrorValue, OptionValue,
    SESSION_CLOSED, SessionOptionValue, SetSessionOptionsRequest, SetSessionOptionsResult,
    decode_bare,
};
use super::service::State;
use super::sessions::{Caller, ClientSession};
use super::statements::refuse_transaction;
use super::status;

/// The settings of a session that clients may set by option.
const OPTIONS: [&str; 5] = ["catalog", "schema", "time_zone", "purpose", "string_views"];

const ACTIONS: [(&str, &str); 7] = [
    ("CreatePreparedStatement", "Plans a statement and keeps the plan."),
    ("ClosePreparedStatement", "Forgets a prepared statement."),
    ("CancelQuery", "Cancels a statement, waiting or running, by its FlightInfo."),
    ("CancelFlightInfo", "Cancels a statement, waiting or running, by its FlightInfo."),
    ("SetSessionOptions", "Sets catalog, schema, time_zone, purpose or string_views."),
    ("GetSessionOptions", "Gives the session's options."),
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
        "CancelQuery" => cancel_query(state, caller, &action.body),
        "CancelFlightInfo" => cancel_flight_info(state, caller, &action.body),
        "SetSessionOptions" => set_options(caller, &action.body).await,
        "GetSessionOptions" => Ok(vec![get_options(&caller.client)]),
        "CloseSession" => {
            close_session(state, caller).await?;
            Ok(vec![encoded(&CloseSessionResult { status: SESSION_CLOSED })])
        }
        "BeginTransaction" | "EndTransaction" | "BeginSavepoint" | "EndSavepoint" => {
            Err(no_transactions())
        }
        "CreatePreparedSubstraitPlan" => Err(no_substrait()),
        "RenewFlightEndpoint" => Err(status::unsupported(
            "tickets cannot be renewed",
            "ask for a new one with GetFlightInfo",
        )),
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

fn cancel_query(state: &State, caller: &Caller, body: &Bytes) -> Result<Vec<Bytes>, Status> {
    let request: ActionCancelQueryRequest = unpack(body)?;
    let info = FlightInfo::decode(request.info)
        .map_err(|_| status::malformed("the query to cancel is no FlightInfo"))?;
    // The numbers of both cancel results' enumerations are the same.
    let result = cancel(state, caller, &info)? as i32;
    Ok(vec![encoded(&ActionCancelQueryResult { result }.as_any())])
}

fn cancel_flight_info(state: &State, caller: &Caller, body: &Bytes) -> Result<Vec<Bytes>, Status> {
    let request: CancelFlightInfoRequest = decode_bare(body, "CancelFlightInfoRequest")?;
    let info = request.info.ok_or_else(|| status::malformed("there is no FlightInfo to cancel"))?;
    let status = cancel(state, caller, &info)? as i32;
    Ok(vec![encoded(&CancelFlightInfoResult { status })])
}

fn cancel(state: &State, caller: &Caller, info: &FlightInfo) -> Result<CancelStatus, Status> {
    let tickets = info.endpoint.iter().filter_map(|endpoint| endpoint.ticket.as_ref());
    let mut outcome = None;
    for ticket in tickets {
        let command = Any::decode(ticket.ticket.clone()).ok().map(Command::try_from);
        match command {
            Some(Ok(Command::TicketStatementQuery(query))) => {
                state.statements.cancel(caller.client.owner(), &query.statement_handle)?;
                outcome = Some(CancelStatus::Cancelled);
            }
            _ => outcome = outcome.or(Some(CancelStatus::NotCancellable)),
        }
    }
    outcome.ok_or_else(|| status::malformed("the FlightInfo has no ticket"))
}

async fn set_options(caller: &Caller, body: &Bytes) -> Result<Vec<Bytes>, Status> {
    let client = caller.lasting()?;
    let request: SetSessionOptionsRequest = decode_bare(body, "SetSessionOptionsRequest")?;
    let mut errors = HashMap::new();
    for (name, value) in request.session_options {
        if let Err(reason) = set_option(client, &name, value.option_value).await {
            errors.insert(name, OptionError { value: reason as i32 });
        }
    }
    Ok(vec![encoded(&SetSessionOptionsResult { errors })])
}

async fn set_option(
    client: &ClientSession,
    name: &str,
    value: Option<OptionValue>,
) -> Result<(), OptionErrorValue> {
    if !OPTIONS.contains(&name) {
        return Err(OptionErrorValue::InvalidName);
    }
    let text = match value {
        Some(OptionValue::Text(text)) => text,
        Some(OptionValue::Bool(truth)) => truth.to_string(),
        // Without a value the option is unset.
        None => String::new(),
        Some(_) => return Err(OptionErrorValue::InvalidValue),
    };
    client.session.set(name, &text).await.map_err(|error| {
        tracing::debug!(option = name, code = error.code(), "session option refused: {error}");
        match error.class() {
            Class::Invalid | Class::NotFound | Class::Syntax => OptionErrorValue::InvalidValue,
            _ => OptionErrorValue::Error,
        }
    })
}

fn get_options(client: &ClientSession) -> Bytes {
    let text = |value| SessionOptionValue { option_value: Some(OptionValue::Text(value)) };
    let session_options = OPTIONS
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), text(client.session.setting(name)?))))
        .collect();
    encoded(&GetSessionOptionsResult { session_options })
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
