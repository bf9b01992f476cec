//! gRPC reflection: what a generic client such as grpcurl needs to call this server. It shows the
//! protocol, which is public, and nothing of the server's state.
//!
//! arrow-flight ships no descriptor of `Flight.proto`, so it is written here as a table of the
//! services and messages; a test holds it against arrow-flight's own types.

use std::sync::LazyLock;

use prost::Message;
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};
use tonic_reflection::server::v1alpha::{
    ServerReflection as OldReflection, ServerReflectionServer as OldReflectionServer,
};
use tonic_reflection::server::{Builder, Error};

const PACKAGE: &str = "arrow.flight.protocol";
const FILE: &str = "Flight.proto";
const TIMESTAMP_FILE: &str = "google/protobuf/timestamp.proto";

/// The reflection service.
///
/// # Errors
/// When a descriptor cannot be read, which is a defect.
pub fn service() -> Result<ServerReflectionServer<impl ServerReflection>, Error> {
    builder().build_v1()
}

/// The same in the version that older clients ask for.
///
/// # Errors
/// As [`service`].
pub fn old_service() -> Result<OldReflectionServer<impl OldReflection>, Error> {
    builder().build_v1alpha()
}

static DESCRIPTORS: LazyLock<Vec<u8>> = LazyLock::new(descriptors);

fn builder() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(&DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// A field's type, as `descriptor.proto` numbers them.
#[derive(Clone, Copy)]
enum Kind {
    Double,
    Int64,
    Uint64,
    Int32,
    Bool,
    Text,
    Bytes,
    /// A message, by its full name without the leading dot, or by its name in this package.
    Message(&'static str),
    Enum(&'static str),
}

use Kind::{Bool, Bytes, Double, Enum, Int32, Int64, Text, Uint64};

/// Name, number, type, whether it may repeat.
type Field = (&'static str, i32, Kind, bool);

const MESSAGES: [(&str, &[Field]); 20] = [
    ("HandshakeRequest", &[("protocol_version", 1, Uint64, false), ("payload", 2, Bytes, false)]),
    ("HandshakeResponse", &[("protocol_version", 1, Uint64, false), ("payload", 2, Bytes, false)]),
    ("BasicAuth", &[("username", 2, Text, false), ("password", 3, Text, false)]),
    ("Empty", &[]),
    ("ActionType", &[("type", 1, Text, false), ("description", 2, Text, false)]),
    ("Criteria", &[("expression", 1, Bytes, false)]),
    ("Action", &[("type", 1, Text, false), ("body", 2, Bytes, false)]),
    ("CancelFlightInfoRequest", &[("info", 1, Kind::Message("FlightInfo"), false)]),
    ("RenewFlightEndpointRequest", &[("endpoint", 1, Kind::Message("FlightEndpoint"), false)]),
    ("Result", &[("body", 1, Bytes, false)]),
    ("CancelFlightInfoResult", &[("status", 1, Enum("CancelStatus"), false)]),
    ("SchemaResult", &[("schema", 1, Bytes, false)]),
    (
        "FlightDescriptor",
        &[
            ("type", 1, Enum("FlightDescriptor.DescriptorType"), false),
            ("cmd", 2, Bytes, false),
            ("path", 3, Text, true),
        ],
    ),
    (
        "FlightInfo",
        &[
            ("schema", 1, Bytes, false),
            ("flight_descriptor", 2, Kind::Message("FlightDescriptor"), false),
            ("endpoint", 3, Kind::Message("FlightEndpoint"), true),
            ("total_records", 4, Int64, false),
            ("total_bytes", 5, Int64, false),
            ("ordered", 6, Bool, false),
            ("app_metadata", 7, Bytes, false),
        ],
    ),
    (
        "PollInfo",
        &[
            ("info", 1, Kind::Message("FlightInfo"), false),
            ("flight_descriptor", 2, Kind::Message("FlightDescriptor"), false),
            ("progress", 3, Double, false),
            ("expiration_time", 4, Kind::Message("google.protobuf.Timestamp"), false),
        ],
    ),
    (
        "FlightEndpoint",
        &[
            ("ticket", 1, Kind::Message("Ticket"), false),
            ("location", 2, Kind::Message("Location"), true),
            ("expiration_time", 3, Kind::Message("google.protobuf.Timestamp"), false),
            ("app_metadata", 4, Bytes, false),
        ],
    ),
    ("Location", &[("uri", 1, Text, false)]),
    ("Ticket", &[("ticket", 1, Bytes, false)]),
    (
        "FlightData",
        &[
            ("flight_descriptor", 1, Kind::Message("FlightDescriptor"), false),
            ("data_header", 2, Bytes, false),
            ("app_metadata", 3, Bytes, false),
            ("data_body", 1000, Bytes, false),
        ],
    ),
    ("PutResult", &[("app_metadata", 1, Bytes, false)]),
];

/// Name, request and whether it streams, answer and whether it streams.
type Call = (&'static str, (&'static str, bool), (&'static str, bool));

const CALLS: [Call; 10] = [
    ("Handshake", ("HandshakeRequest", true), ("HandshakeResponse", true)),
    ("ListFlights", ("Criteria", false), ("FlightInfo", true)),
    ("GetFlightInfo", ("FlightDescriptor", false), ("FlightInfo", false)),
    ("PollFlightInfo", ("FlightDescriptor", false), ("PollInfo", false)),
    ("GetSchema", ("FlightDescriptor", false), ("SchemaResult", false)),
    ("DoGet", ("Ticket", false), ("FlightData", true)),
    ("DoPut", ("FlightData", true), ("PutResult", true)),
    ("DoExchange", ("FlightData", true), ("FlightData", true)),
    ("DoAction", ("Action", false), ("Result", true)),
    ("ListActions", ("Empty", false), ("ActionType", true)),
];

const CANCEL_STATUS: [(&str, i32); 4] = [
    ("CANCEL_STATUS_UNSPECIFIED", 0),
    ("CANCEL_STATUS_CANCELLED", 1),
    ("CANCEL_STATUS_CANCELLING", 2),
    ("CANCEL_STATUS_NOT_CANCELLABLE", 3),
];
const DESCRIPTOR_TYPE: [(&str, i32); 3] = [("UNKNOWN", 0), ("PATH", 1), ("CMD", 2)];

/// The encoded `FileDescriptorSet`.
fn descriptors() -> Vec<u8> {
    let messages = MESSAGES.iter().map(|(name, fields)| {
        let mut message = message(name, fields);
        if *name == "FlightDescriptor" {
            message.enums = vec![enumeration("DescriptorType", &DESCRIPTOR_TYPE)];
        }
        message
    });
    let flight = FileDescriptor {
        name: FILE.into(),
        package: PACKAGE.into(),
        dependencies: vec![TIMESTAMP_FILE.into()],
        messages: messages.collect(),
        enums: vec![enumeration("CancelStatus", &CANCEL_STATUS)],
        services: vec![ServiceDescriptor {
            name: "FlightService".into(),
            methods: CALLS.iter().map(method).collect(),
        }],
        syntax: "proto3".into(),
    };
    let timestamp = FileDescriptor {
        name: TIMESTAMP_FILE.into(),
        package: "google.protobuf".into(),
        messages: vec![message(
            "Timestamp",
            &[("seconds", 1, Int64, false), ("nanos", 2, Int32, false)],
        )],
        syntax: "proto3".into(),
        ..FileDescriptor::default()
    };
    FileDescriptorSet { files: vec![timestamp, flight] }.encode_to_vec()
}

fn full_name(name: &str) -> String {
    match name.starts_with("google.") {
        true => format!(".{name}"),
        false => format!(".{PACKAGE}.{name}"),
    }
}

fn message(name: &str, fields: &[Field]) -> MessageDescriptor {
    let fields = fields.iter().map(|(name, number, kind, repeated)| {
        let (kind, type_name) = match kind {
            Double => (1, None),
            Int64 => (3, None),
            Uint64 => (4, None),
            Int32 => (5, None),
            Bool => (8, None),
            Text => (9, None),
            Kind::Message(name) => (11, Some(full_name(name))),
            Bytes => (12, None),
            Enum(name) => (14, Some(full_name(name))),
        };
        FieldDescriptor {
            name: (*name).into(),
            number: *number,
            label: if *repeated { 3 } else { 1 },
            kind,
            type_name,
        }
    });
    MessageDescriptor { name: name.into(), fields: fields.collect(), enums: vec![] }
}

fn enumeration(name: &str, values: &[(&str, i32)]) -> EnumDescriptor {
    let values = values.iter().map(|(name, number)| EnumValueDescriptor {
        name: (*name).into(),
        // Zero is a value like any other here, not one to be left out.
        number: Some(*number),
    });
    EnumDescriptor { name: name.into(), values: values.collect() }
}

fn method((name, request, answer): &Call) -> MethodDescriptor {
    MethodDescriptor {
        name: (*name).into(),
        request: full_name(request.0),
        answer: full_name(answer.0),
        requests: request.1,
        answers: answer.1,
    }
}

// The parts of `descriptor.proto` that are used, with its numbers.

#[derive(Clone, PartialEq, Message)]
struct FileDescriptorSet {
    #[prost(message, repeated, tag = "1")]
    files: Vec<FileDescriptor>,
}

#[derive(Clone, PartialEq, Message)]
struct FileDescriptor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    package: String,
    #[prost(string, repeated, tag = "3")]
    dependencies: Vec<String>,
    #[prost(message, repeated, tag = "4")]
    messages: Vec<MessageDescriptor>,
    #[prost(message, repeated, tag = "5")]
    enums: Vec<EnumDescriptor>,
    #[prost(message, repeated, tag = "6")]
    services: Vec<ServiceDescriptor>,
    #[prost(string, tag = "12")]
    syntax: String,
}

#[derive(Clone, PartialEq, Message)]
struct MessageDescriptor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    fields: Vec<FieldDescriptor>,
    #[prost(message, repeated, tag = "4")]
    enums: Vec<EnumDescriptor>,
}

#[derive(Clone, PartialEq, Message)]
struct FieldDescriptor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "3")]
    number: i32,
    #[prost(int32, tag = "4")]
    label: i32,
    #[prost(int32, tag = "5")]
    kind: i32,
    #[prost(string, optional, tag = "6")]
    type_name: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct EnumDescriptor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    values: Vec<EnumValueDescriptor>,
}

#[derive(Clone, PartialEq, Message)]
struct EnumValueDescriptor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, optional, tag = "2")]
    number: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct ServiceDescriptor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    methods: Vec<MethodDescriptor>,
}

#[derive(Clone, PartialEq, Message)]
struct MethodDescriptor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    request: String,
    #[prost(string, tag = "3")]
    answer: String,
    #[prost(bool, tag = "5")]
    requests: bool,
    #[prost(bool, tag = "6")]
    answers: bool,
}

#[cfg(test)]
mod tests {
    use arrow_flight::flight_service_server::FlightServiceServer;
    use arrow_flight::{
        FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, PollInfo, Ticket,
    };

    use tonic::server::NamedService;

    use super::*;

    /// The numbers of the fields that an encoded message has, from its bytes.
    fn numbers(message: &impl Message) -> Vec<i32> {
        let bytes = message.encode_to_vec();
        let mut rest = bytes.as_slice();
        let mut found = Vec::new();
        while !rest.is_empty() {
            let (number, wire) = prost::encoding::decode_key(&mut rest).unwrap();
            let context = prost::encoding::DecodeContext::default();
            prost::encoding::skip_field(wire, number, &mut rest, context).unwrap();
            found.push(i32::try_from(number).unwrap());
        }
        found.dedup();
        found
    }

    fn described(name: &str) -> Vec<i32> {
        let (_, fields) = MESSAGES.iter().find(|(known, _)| *known == name).unwrap();
        fields.iter().map(|field| field.1).collect()
    }

    #[test]
    fn the_table_is_arrow_flights() {
        let name = <FlightServiceServer<super::super::service::Service> as NamedService>::NAME;
        assert_eq!(name, format!("{PACKAGE}.FlightService"));
        let descriptor =
            FlightDescriptor { r#type: 1, cmd: b"c".as_slice().into(), path: vec!["p".into()] };
        let endpoint = FlightEndpoint {
            ticket: Some(Ticket { ticket: b"t".as_slice().into() }),
            location: vec![arrow_flight::Location { uri: "u".into() }],
            expiration_time: Some(Default::default()),
            app_metadata: b"m".as_slice().into(),
        };
        let info = FlightInfo {
            schema: b"s".as_slice().into(),
            flight_descriptor: Some(descriptor.clone()),
            endpoint: vec![endpoint.clone()],
            total_records: 1,
            total_bytes: 1,
            ordered: true,
            app_metadata: b"m".as_slice().into(),
        };
        let poll = PollInfo {
            info: Some(info.clone()),
            flight_descriptor: Some(descriptor.clone()),
            progress: Some(0.5),
            expiration_time: Some(Default::default()),
        };
        let data = FlightData {
            flight_descriptor: Some(descriptor.clone()),
            data_header: b"h".as_slice().into(),
            app_metadata: b"m".as_slice().into(),
            data_body: b"b".as_slice().into(),
        };
        for (name, found) in [
            ("FlightDescriptor", numbers(&descriptor)),
            ("FlightEndpoint", numbers(&endpoint)),
            ("FlightInfo", numbers(&info)),
            ("PollInfo", numbers(&poll)),
            ("FlightData", numbers(&data)),
        ] {
            assert_eq!(found, described(name), "{name}");
        }
    }

    #[test]
    fn every_type_that_is_named_is_described() {
        let known = |name: &str| MESSAGES.iter().any(|(known, _)| *known == name);
        for (name, request, answer) in CALLS {
            assert!(known(request.0) && known(answer.0), "{name}");
        }
        for (name, fields) in MESSAGES {
            for (field, _, kind, _) in fields {
                if let Kind::Message(named) = kind {
                    assert!(named.starts_with("google.") || known(named), "{name}.{field}");
                }
            }
        }
        assert!(service().is_ok() && old_service().is_ok());
    }
}
