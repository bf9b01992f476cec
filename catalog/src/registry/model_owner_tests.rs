//! Tests of whose a model is: a schedule trains it with its owner's rights, so it is of who has
//! written what is trained.

use super::model::{Publication, Standing};
use super::model_tests::{model, publication};
use crate::testing::{Shared, main};
use crate::{Catalog, CreateMode};

async fn owner(catalog: &Catalog) -> String {
    catalog.models().await.unwrap().remove(0).owner
}

#[tokio::test]
async fn who_writes_another_query_owns_the_model() {
    let catalog = Shared::new().open().await;
    let (name, standing) = (main("m"), Standing::default());
    let claim = catalog.claim_version(&name, "ann", CreateMode::New).await.unwrap();
    catalog.publish(claim, model(1.0), publication(), standing).await.unwrap();
    // RETRAIN, by somebody who may.
    let claim = catalog.claim_version(&name, "root", CreateMode::Replace).await.unwrap();
    catalog.publish(claim, model(2.0), publication(), standing).await.unwrap();
    assert_eq!(owner(&catalog).await, "ann");
    // CREATE OR REPLACE MODEL.
    let mut claim = catalog.claim_version(&name, "bob", CreateMode::Replace).await.unwrap();
    claim.take_over();
    let other = Publication { query: "SELECT * FROM secrets".into(), ..publication() };
    catalog.publish(claim, model(3.0), other, standing).await.unwrap();
    assert_eq!(owner(&catalog).await, "bob");
    catalog.set_default_version(&name, 1).await.unwrap();
    assert_eq!(owner(&catalog).await, "ann");
}
