//! Applying retention policies to a warehouse table: one server at a time, and to the end.
//!
//! The rows that stay are written as for an erasure ([`crate::table_erasure`]), so that earlier
//! versions and their files go too. The table's definition says who is at work and when it was
//! there last: another server begins only when the interval is over or, where the first one was
//! killed, when nothing was heard of it for a while. Whoever holds a person ends what is under way,
//! which is then begun anew and leaves the person's rows.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::execution::SessionState;
use object_store::path::Path;

use crate::Catalog;
use crate::error::{Error, Result};
use crate::lake::files::TableFiles;
use crate::registry::change::TRIES;
use crate::registry::{Definition, ManagedTable, ObjectName, Spec};
use crate::tables::check_erasure;

/// Who rewrites a table for its retention policies has an id that begins so.
const RETENTION: &str = "retention ";
/// Who was not there for so long has stopped.
const ALIVE_MS: i64 = 5 * 60 * 1_000;

/// Whether the id of who rewrites a table is that of an application of retention policies.
pub(crate) fn is_retention(id: &str) -> bool {
    id.starts_with(RETENTION)
}

/// Whether somebody who applies a table's retention policies was there lately.
fn is_alive(table: &ManagedTable, now_ms: i64) -> bool {
    table.retained_ms.is_some_and(|last_ms| now_ms < last_ms.saturating_add(ALIVE_MS))
}

impl Catalog {
    /// Claims the next application of a table's retention policies; `false` when it is not due, no
    /// warehouse table, somebody else rewrites it, or another server was first.
    ///
    /// # Errors
    /// When the warehouse cannot be reached or written.
    pub async fn claim_retention(&self, name: &ObjectName, every_ms: i64) -> Result<bool> {
        let now_ms = self.now_ms();
        let is_due = |table: &ManagedTable| match &table.erasing {
            // One whose server has stopped is ended whenever it began.
            Some(id) => is_retention(id) && !is_alive(table, now_ms),
            None => table.retained_ms.is_none_or(|last| last.saturating_add(every_ms) <= now_ms),
        };
        // Most looks end here, where nothing is asked of the store.
        match self.definition(name).await? {
            Some(Definition { spec: Spec::Managed(table), .. }) if is_due(&table) => {}
            _ => return Ok(false),
        }
        self.writable().await?;
        let Some((head, mut table, owner)) = self.managed_head(name).await? else {
            return Ok(false);
        };
        if !is_due(&table) {
            return Ok(false);
        }
        let stopped = table.erasing.take();
        table.retained_ms = Some(now_ms);
        match self.objects.put(name, Some(Spec::Managed(table)), &owner, Some(&head)).await {
            Err(error) if error.is_lost_race() => return Ok(false),
            other => other?,
        };
        self.sweep_stopped(stopped).await;
        Ok(true)
    }

    /// Removes what was left by who began to rewrite a table, and was taken over.
    async fn sweep_stopped(&self, id: Option<String>) {
        if let Some(id) = id
            && let Err(error) = self.sweep_rewritings(&id).await
        {
            tracing::warn!(%error, id, "files of a rewriting that has stopped stay");
        }
    }

    /// Begins to rewrite a table: from now on nobody else's rows are committed. Gives the id of
    /// this application and the table's version, which remains; `None` when there is no such table.
    ///
    /// # Errors
    /// `Invalid` when it is no warehouse table, or somebody else rewrites it; `Conflict` when
    /// others change its definition again and again; when the warehouse cannot be read or written.
    pub async fn begin_retention(&self, name: &ObjectName) -> Result<Option<(String, u64)>> {
        self.writable().await?;
        let id = format!("{RETENTION}{}", self.new_id());
        for _ in 0..TRIES {
            let Some((head, mut table, owner)) = self.managed_head(name).await? else {
                return Ok(None);
            };
            let now_ms = self.now_ms();
            let has_stopped =
                table.erasing.as_deref().is_some_and(is_retention) && !is_alive(&table, now_ms);
            if !has_stopped {
                check_erasure(name, &table)?;
            }
            let stopped = table.erasing.replace(id.clone());
            table.retained_ms = Some(now_ms);
            let spec = Some(Spec::Managed(table.clone()));
            match self.objects.put(name, spec, &owner, Some(&head)).await {
                Err(error) if error.is_lost_race() => continue,
                other => other?,
            };
            self.sweep_stopped(stopped).await;
            let place = self.warehouse.place().child(&table.folder).folder();
            let newest = self.tables.newest(&name.to_string(), &place).await?;
            return Ok(Some((id, table.shown(newest.version().unwrap_or_default()))));
        }
        Err(Error::Conflict { name: name.to_string() })
    }

    /// Notes that who applies a table's retention policies is still there.
    ///
    /// # Errors
    /// `Conflict` when it has been ended by somebody else; when the warehouse cannot be written.
    pub async fn note_retention(&self, name: &ObjectName, id: &str) -> Result<()> {
        let note = |table: &mut ManagedTable| {
            table.retained_ms = Some(self.now_ms());
            table.erasing.as_deref() == Some(id)
        };
        match self.change_retention(name, note).await? {
            true => Ok(()),
            false => Err(Error::Conflict { name: name.to_string() }),
        }
    }

    /// Ends the application `id` of a table's retention policies, or whichever is under way: the
    /// table stays as it is, and others may write again. Whether there was one.
    ///
    /// # Errors
    /// When the warehouse cannot be reached or written.
    pub async fn stop_retention(&self, name: &ObjectName, id: Option<&str>) -> Result<bool> {
        let stop = |table: &mut ManagedTable| {
            let erasing = table.erasing.take();
            erasing.is_some_and(|held| is_retention(&held) && id.is_none_or(|id| id == held))
        };
        self.change_retention(name, stop).await
    }

    /// Says when a table's retention policies were applied last, such as after an application that
    /// failed, which is then tried again before its turn. A table that is being rewritten is left
    /// alone.
    ///
    /// # Errors
    /// When the warehouse cannot be reached or written.
    pub async fn date_retention(&self, name: &ObjectName, last_ms: i64) -> Result<bool> {
        let date = |table: &mut ManagedTable| {
            table.retained_ms = Some(last_ms);
            table.erasing.is_none()
        };
        self.change_retention(name, date).await
    }

    /// Changes what a table's definition says of its retention, where `change` says so.
    async fn change_retention(
        &self,
        name: &ObjectName,
        change: impl Fn(&mut ManagedTable) -> bool,
    ) -> Result<bool> {
        for _ in 0..TRIES {
            let Some(head) = self.objects.head(name).await? else { return Ok(false) };
            let document = head.document.clone()?;
            let Some(Spec::Managed(table)) = &document.spec else { return Ok(false) };
            let mut table = table.clone();
            if !change(&mut table) {
                return Ok(false);
            }
            let (spec, owner) = (Some(Spec::Managed(table)), &document.owner);
            match self.objects.put(name, spec, owner, Some(&head)).await {
                Err(error) if error.is_lost_race() => {}
                other => return other.map(|_| true),
            }
        }
        Err(Error::Conflict { name: name.to_string() })
    }

    /// Forgets what checks have kept of the values in each of a table's files.
    ///
    /// # Errors
    /// When the warehouse cannot be written.
    pub async fn forget_checked_files(&self, name: &ObjectName) -> Result<()> {
        self.forget_check_states(name).await?;
        self.forget_check_keys(name).await
    }

    /// The files of a warehouse table that only earlier versions name, or no version any more;
    /// `None` when there are none, or its files are not all that there is to it.
    ///
    /// # Errors
    /// When it is no warehouse table, or it cannot be read.
    pub async fn past_files(
        &self,
        name: &ObjectName,
        state: &SessionState,
    ) -> Result<Option<TableFiles>> {
        let text = name.to_string();
        let (place, managed) = self.managed(name).await?;
        // Listed first: what is committed meanwhile is not taken for the past.
        let mut objects = self.objects_in(&managed.folder).await?;
        let newest = self.tables.newest(&text, &place).await?;
        let Some(present) = self.tables.plain(&text, &place, &newest, state)? else {
            return Ok(None);
        };
        let named: HashSet<&Path> = present.files().iter().map(|file| &file.location).collect();
        objects.retain(|object| {
            let mut parts = object.location.parts();
            let is_log = parts.any(|part| part.as_ref() == "_delta_log");
            let is_data = object.location.extension() == Some("parquet") && !is_log;
            is_data && !named.contains(&object.location)
        });
        if objects.is_empty() {
            return Ok(None);
        }
        let past = present.with_files(objects);
        Ok(TableFiles::of_delta(managed.folder, Arc::new(past)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::Written;
    use crate::testing::{TestClock, main, open_folder, plan, session};
    use crate::{CreateMode, NewTable};

    const HOUR_MS: i64 = 3_600_000;
    const DAY_MS: i64 = 24 * HOUR_MS;

    /// Two servers over one warehouse with a table of two rows.
    async fn servers(folder: &std::path::Path, clock: &TestClock) -> [Arc<Catalog>; 2] {
        clock.advance(1_700_000_000_000);
        let servers = [open_folder(folder, clock).await, open_folder(folder, clock).await];
        let [one, _] = &servers;
        let rows = plan(one, "SELECT * FROM (VALUES ('old'), ('new')) AS t (id)", &[]).await;
        let mode = CreateMode::New;
        let made = one
            .create_table_as(&main("t"), "ann", mode, rows, session(one), &NewTable::default())
            .await;
        assert!(made.unwrap().is_some());
        servers
    }

    #[tokio::test]
    async fn of_several_servers_one_claims_a_table_once_an_interval() {
        let folder = tempfile::tempdir().unwrap();
        let clock = TestClock::default();
        let [one, other] = servers(folder.path(), &clock).await;
        let name = main("t");
        clock.advance(1_000);
        let claims =
            tokio::join!(one.claim_retention(&name, DAY_MS), other.claim_retention(&name, DAY_MS));
        assert!(claims.0.unwrap() ^ claims.1.unwrap());
        clock.advance(DAY_MS - 1);
        assert!(!one.claim_retention(&name, DAY_MS).await.unwrap());
        clock.advance(1);
        assert!(other.claim_retention(&name, DAY_MS).await.unwrap());
        // It failed, and is tried again an hour later.
        let last_ms = other.now_ms() - DAY_MS + HOUR_MS;
        assert!(other.date_retention(&name, last_ms).await.unwrap());
        clock.advance(HOUR_MS - 1);
        assert!(!other.claim_retention(&name, DAY_MS).await.unwrap());
        clock.advance(1);
        assert!(other.claim_retention(&name, DAY_MS).await.unwrap());
        assert!(!one.claim_retention(&main("x"), DAY_MS).await.unwrap());
    }

    #[tokio::test]
    async fn who_is_at_work_is_left_alone_and_who_has_stopped_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let clock = TestClock::default();
        let [one, other] = servers(folder.path(), &clock).await;
        let name = main("t");
        let (id, version) = one.begin_retention(&name).await.unwrap().unwrap();
        assert_eq!(version, 0);
        clock.advance(ALIVE_MS - 1);
        one.note_retention(&name, &id).await.unwrap();
        clock.advance(1_000);
        assert!(!other.claim_retention(&name, 0).await.unwrap());
        let refused = other.begin_retention(&name).await.unwrap_err();
        assert!(refused.to_string().contains("retention is over"), "{refused}");
        let more = plan(&other, "SELECT 'late' AS id", &[]).await;
        let refused = other.insert(&name, more.clone(), session(&other), None, false).await;
        assert!(refused.unwrap_err().to_string().contains("retention is over"));
        // Nothing is heard of the first: the second one takes over, and the first gives way.
        clock.advance(ALIVE_MS);
        assert!(other.claim_retention(&name, i64::MAX).await.unwrap());
        let (second, version) = other.begin_retention(&name).await.unwrap().unwrap();
        assert!(one.note_retention(&name, &id).await.unwrap_err().is_lost_race());
        let keep = plan(&one, "SELECT 'new' AS id", &[]).await;
        let state = session(&one);
        let late = one.finish_table_erasure(&name, &id, version, keep.clone(), &state).await;
        assert!(late.unwrap_err().is_lost_race());
        other.note_retention(&name, &second).await.unwrap();
        let done = other.finish_table_erasure(&name, &second, version, keep, &state).await;
        assert_eq!(done.unwrap(), Written { rows: 1, version: 2 });
        let purged = other.open_table(&name, Some(0), &state).await.unwrap_err();
        assert!(purged.to_string().contains("purged by its retention policy"), "{purged}");
        assert!(other.insert(&name, more, session(&other), None, false).await.is_ok());
    }

    #[tokio::test]
    async fn what_was_stopped_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let clock = TestClock::default();
        let [one, other] = servers(folder.path(), &clock).await;
        let name = main("t");
        assert!(!one.stop_retention(&name, None).await.unwrap());
        let (id, version) = one.begin_retention(&name).await.unwrap().unwrap();
        assert!(!other.stop_retention(&name, Some("retention of another")).await.unwrap());
        assert!(other.stop_retention(&name, None).await.unwrap());
        let keep = plan(&one, "SELECT 'new' AS id", &[]).await;
        let state = session(&one);
        let late = one.finish_table_erasure(&name, &id, version, keep, &state).await;
        assert!(late.unwrap_err().is_lost_race());
        assert_eq!(one.table_version(&name).await.unwrap(), 0);
        // A person is being forgotten: that goes first.
        assert!(one.begin_table_erasure(&name, "e1").await.is_ok());
        assert!(!one.stop_retention(&name, None).await.unwrap());
        let refused = one.begin_retention(&name).await.unwrap_err();
        assert!(refused.to_string().contains("FORGET SUBJECT"), "{refused}");
    }

    #[tokio::test]
    async fn the_past_is_what_no_present_version_names() {
        let folder = tempfile::tempdir().unwrap();
        let clock = TestClock::default();
        let [one, _] = servers(folder.path(), &clock).await;
        let name = main("t");
        let state = session(&one);
        assert!(one.past_files(&name, &state).await.unwrap().is_none());
        let keep = plan(&one, "SELECT 'new' AS id", &[]).await;
        one.insert(&name, keep, state.clone(), Some(0), true).await.unwrap();
        let past = one.past_files(&name, &state).await.unwrap().unwrap();
        assert!(!past.ids().is_empty());
    }
}
