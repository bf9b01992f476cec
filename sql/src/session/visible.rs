//! What a statement's principal sees under a name, and what it is told where it sees nothing: the
//! same as when there is nothing.

use catalog::{Object, ObjectName};

use crate::error::{Error, Result};
use crate::rights::{Access, Rights};
use crate::session::StatementContext;

impl StatementContext {
    /// What the principal may do with the rows of a table or view.
    pub(crate) async fn access(&self, name: &ObjectName) -> Access {
        let granted = self.rights().granted_access(name);
        // To everybody else the table may be a restricted one.
        if granted.is_all() && self.session().principal().is_embedded() {
            return granted;
        }
        match self.engine().catalog().object(name).await {
            Ok(object) => self.rights().access(name, object.as_ref()),
            // What cannot be looked up may be a restricted table.
            Err(_) => Access::default(),
        }
    }

    /// What a written name means among the things of which `sees` says that the principal may
    /// see them: an unqualified name is looked up along the search path.
    pub(crate) async fn find(
        &self,
        parts: &[String],
        sees: impl Fn(&Rights, &ObjectName, &Object) -> bool,
    ) -> Result<Option<(ObjectName, Object)>> {
        let candidates = match parts {
            [name] => {
                let path = self.search_path().into_iter();
                path.map(|schema| ObjectName::new(schema, name)).collect()
            }
            _ => vec![self.target(parts)?],
        };
        for name in candidates.into_iter().filter(|name| self.may_see(&name.schema)) {
            let object = match self.engine().catalog().object(&name).await {
                Ok(Some(object)) => object,
                Ok(None) => continue,
                // A damaged definition is told to those who would see it.
                Err(error) if self.rights().granted_access(&name).is_any() => {
                    return Err(error.into());
                }
                Err(_) => continue,
            };
            if sees(self.rights(), &name, &object) {
                return Ok(Some((name, object)));
            }
        }
        Ok(None)
    }

    /// Checks that what a name is may be replaced, dropped or retrained.
    ///
    /// # Errors
    /// When it may not.
    pub(crate) async fn may_change(&self, name: &ObjectName) -> Result<()> {
        if self.rights().may_create(name).is_ok() {
            return Ok(());
        }
        let object = self.engine().catalog().object(name).await.unwrap_or_default();
        self.rights().may_change(name, object.as_ref())
    }

    /// Whether a model may be asked.
    pub(crate) async fn may_use(&self, model: &ObjectName) -> Result<bool> {
        if self.rights().may_use(model, None) {
            return Ok(true);
        }
        let object = self.engine().catalog().object(model).await?;
        Ok(self.rights().may_use(model, object.and_then(|object| object.owner).as_deref()))
    }

    /// Whether what a model learned of single persons may be read.
    ///
    /// # Errors
    /// When it may not.
    pub(crate) async fn may_explain(&self, model: &ObjectName) -> Result<()> {
        if self.rights().may_explain(model, None).is_ok() {
            return Ok(());
        }
        let object = self.engine().catalog().object(model).await?;
        let owner = object.and_then(|object| object.owner);
        self.rights().may_explain(model, owner.as_deref())
    }

    /// The error for a model that does not exist, or must not be seen.
    pub(crate) async fn no_model(&self, written: &str) -> Error {
        let models = self.engine().catalog().models().await.unwrap_or_default();
        let names: Vec<String> = models
            .iter()
            .filter(|model| self.rights().may_use(&model.name, Some(&model.owner)))
            .flat_map(|model| [model.name.to_string(), model.name.name.clone()])
            .collect();
        let names = names.iter().map(String::as_str);
        Error::Catalog(catalog::Error::not_found("model", written, names))
    }

    /// The error for a table that does not exist, or must not be seen.
    pub(crate) async fn no_table(&self, written: &str) -> Error {
        let names = self.session().table_names().await.unwrap_or_default();
        let known: Vec<String> = names
            .into_iter()
            .flat_map(|(schema, name)| [format!("{schema}.{name}"), name])
            .collect();
        let known = known.iter().map(String::as_str);
        Error::Catalog(catalog::Error::not_found("table", written, known))
    }
}
