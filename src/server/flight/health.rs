//! gRPC's own health service. It needs no login: it says whether the server serves, nothing else.

use arrow_flight::flight_service_server::FlightServiceServer;
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthApi, HealthServer};
use tonic_health::server::{HealthReporter, HealthService};

use super::service::Service;

/// The services whose health is told: the server as a whole, and Flight.
const NAMES: [&str; 2] = ["", <FlightServiceServer<Service> as NamedService>::NAME];

/// What the health service says.
pub struct Health {
    reporter: HealthReporter,
}

impl Health {
    /// Everything serves.
    pub async fn serving() -> Self {
        let health = Self { reporter: HealthReporter::new() };
        health.set(ServingStatus::Serving).await;
        health
    }

    /// The service that tells it.
    pub fn service(&self) -> HealthServer<impl HealthApi + use<>> {
        HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()))
    }

    /// Nothing serves from now on. Who watches hears it once and is let go: a watch without end
    /// would keep the server from stopping.
    pub async fn draining(mut self) {
        self.set(ServingStatus::NotServing).await;
        for name in NAMES {
            self.reporter.clear_service_status(name).await;
        }
        self.set(ServingStatus::NotServing).await;
    }

    async fn set(&self, status: ServingStatus) {
        for name in NAMES {
            self.reporter.set_service_status(name, status).await;
        }
    }
}
