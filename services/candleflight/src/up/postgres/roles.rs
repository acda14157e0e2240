//! Roles and permissions in the private cluster.
//!
//! The role for people and services has a published password. It owns the databases, but it can neither run programs on the server's
//! machine nor read its files. The superuser has a different name and a random password.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, chown};
use std::path::Path;

use anyhow::Context as _;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Error, NoTls};

/// Role for people and services, and its password.
pub(super) const USER: &str = "postgres";
pub(super) const PASSWORD: &str = "postgres";
/// Superuser of the cluster.
pub(super) const SUPERUSER: &str = "candleflight_superuser";
/// File with the superuser's password, in the server's folder.
pub(super) const PASSWORD_FILE: &str = "superuser-password";
/// Temporary superuser. It renames the superuser of the first version, since a role cannot rename itself.
const INTERIM: &str = "candleflight_interim";
/// Database of gold.
pub(super) const DATABASE: &str = "crypto_db";
/// Database that every cluster has.
const MAINTENANCE: &str = "postgres";
/// Database of Superset's metadata, and its name in the first version.
const METADATA: &str = super::super::dashboard::METADATA_DATABASE;
const METADATA_BEFORE: &str = "superset";

/// Permissions of the published role: it may create databases.
const USER_RIGHTS: &str = "LOGIN CREATEDB NOSUPERUSER NOCREATEROLE NOREPLICATION NOBYPASSRLS";

/// Gives all objects of the superuser in a database, except system objects, to the role for people and services. The first version created
/// all objects as the superuser.
const HAND_OVER: &str = "DO $$
DECLARE command text;
BEGIN
    FOR command IN
        SELECT format('ALTER SCHEMA %I OWNER TO postgres', nspname)
        FROM pg_namespace WHERE nspowner = 10 AND oid >= 16384 AND nspname !~ '^pg_'
        UNION ALL
        SELECT format('ALTER TABLE %s OWNER TO postgres', pg_class.oid::regclass)
        FROM pg_class WHERE relowner = 10 AND oid >= 16384 AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype IN ('e', 'i')
                        OR classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'a' AND relkind = 'S')
        UNION ALL
        SELECT format('ALTER ROUTINE %s OWNER TO postgres', pg_proc.oid::regprocedure)
        FROM pg_proc WHERE proowner = 10 AND oid >= 16384
        AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = pg_proc.oid AND deptype = 'e')
        UNION ALL
        SELECT format('ALTER TYPE %s OWNER TO postgres', pg_type.oid::regtype)
        FROM pg_type LEFT JOIN pg_class ON pg_class.oid = typrelid
        WHERE typowner = 10 AND pg_type.oid >= 16384 AND (typtype IN ('d', 'e', 'r') OR relkind = 'c')
        AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_type'::regclass AND objid = pg_type.oid AND deptype = 'e')
    LOOP
        EXECUTE command;
    END LOOP;
END $$";

/// Reads the superuser's password from `folder`, or creates one that only the owner of the folder can read.
pub(super) fn superuser_password(folder: &Path) -> anyhow::Result<String> {
    let file = folder.join(PASSWORD_FILE);
    let context = || format!("keep the superuser's password in {}", file.display());
    match fs::read_to_string(&file) {
        Ok(password) => return Ok(password.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (),
        Err(error) => return Err(error).with_context(context),
    }
    let password = uuid::Uuid::new_v4().simple().to_string();
    let unfinished = folder.join("superuser-password.unfinished");
    let mut options = fs::File::options();
    let mut writer = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)
        .with_context(context)?;
    writer.write_all(password.as_bytes()).and_then(|()| writer.sync_all()).with_context(context)?;
    // The owner of the folder is the server's user, which reads the file when it creates the cluster.
    let owner = folder.metadata().with_context(context)?;
    chown(&unfinished, Some(owner.uid()), Some(owner.gid())).with_context(context)?;
    fs::rename(&unfinished, &file).with_context(context)?;
    Ok(password)
}

/// The server and its superuser.
pub(super) struct Superuser<'a> {
    pub(super) port: u16,
    pub(super) password: &'a str,
}

impl Superuser<'_> {
    /// Brings roles and databases to the state of this version. Returns false while the server starts.
    pub(super) async fn prepare(&self) -> anyhow::Result<bool> {
        let roles = match self.run(SUPERUSER, MAINTENANCE, make_missing).await {
            Err(error) if error.code().is_none_or(|code| *code == SqlState::CANNOT_CONNECT_NOW) => {
                return Ok(false);
            }
            // A cluster of the first version does not have this role.
            Err(error) if error.code() == Some(&SqlState::INVALID_PASSWORD) => {
                self.take_over().await.with_context(|| {
                    format!("take over the cluster of an earlier version (or {PASSWORD_FILE} belongs to another cluster)")
                })?;
                self.run(SUPERUSER, MAINTENANCE, make_missing).await
            }
            roles => roles,
        };
        roles.context("prepare the roles and databases of the private PostgreSQL")?;
        self.rename_metadata().await.context("rename Superset's database")?;
        self.hand_over().await.with_context(|| format!("hand databases over to role {USER}"))?;
        Ok(true)
    }

    /// Renames Superset's database of the first version.
    async fn rename_metadata(&self) -> Result<(), Error> {
        let marker = "SELECT to_regclass('candleflight_dashboard') IS NOT NULL";
        let is_ours = async |client: &Client| client.query_one(marker, &[]).await?.try_get(0);
        match self.run(SUPERUSER, METADATA_BEFORE, is_ours).await {
            Ok(true) => (),
            Ok(false) => return Ok(()),
            Err(error) if error.code() == Some(&SqlState::INVALID_CATALOG_NAME) => return Ok(()),
            Err(error) => return Err(error),
        }
        let rename = format!("ALTER DATABASE {METADATA_BEFORE} RENAME TO {METADATA}");
        self.run(SUPERUSER, MAINTENANCE, async |client| client.batch_execute(&rename).await).await?;
        tracing::info!("the database {METADATA_BEFORE} of PostgreSQL is now called {METADATA}");
        Ok(())
    }

    /// Gives the objects that the first version created as the superuser to the role for people and services.
    async fn hand_over(&self) -> Result<(), Error> {
        let databases = self.run(SUPERUSER, MAINTENANCE, databases_to_hand_over).await?;
        for database in &databases {
            self.run(SUPERUSER, database, async |client| client.batch_execute(HAND_OVER).await).await?;
            let change = format!("ALTER DATABASE \"{}\" OWNER TO {USER}", database.replace('"', "\"\""));
            self.run(SUPERUSER, MAINTENANCE, async |client| client.batch_execute(&change).await).await?;
        }
        // This is the last step: while the role exists, the next start repeats an interrupted change.
        let end = format!("SET client_min_messages = warning; DROP ROLE IF EXISTS {INTERIM}");
        self.run(SUPERUSER, MAINTENANCE, async |client| client.batch_execute(&end).await).await
    }

    /// Renames the superuser of a cluster of the first version, whose name is published, and gives it a new password.
    async fn take_over(&self) -> Result<(), Error> {
        let password = self.password;
        let make = format!(
            "SET client_min_messages = warning; DROP ROLE IF EXISTS {INTERIM}; CREATE ROLE {INTERIM} LOGIN SUPERUSER PASSWORD '{password}'"
        );
        self.run(USER, MAINTENANCE, async |client| client.batch_execute(&make).await).await?;
        let rename = format!(
            "BEGIN; ALTER ROLE {USER} RENAME TO {SUPERUSER}; ALTER ROLE {SUPERUSER} PASSWORD '{password}'; COMMIT"
        );
        self.run(INTERIM, MAINTENANCE, async |client| client.batch_execute(&rename).await).await?;
        tracing::info!(
            "role {USER} of PostgreSQL is no longer a superuser; the superuser is {SUPERUSER}, with the password in {PASSWORD_FILE}"
        );
        Ok(())
    }

    async fn run<T>(
        &self,
        user: &str,
        database: &str,
        work: impl AsyncFnOnce(&Client) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let password = if user == USER { PASSWORD } else { self.password };
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).user(user).password(password).dbname(database);
        let (client, connection) = config.connect(NoTls).await?;
        let work = async {
            let done = work(&client).await;
            drop(client); // This ends the connection.
            done
        };
        let (done, connected) = tokio::join!(work, connection);
        connected.and(done)
    }
}

/// Creates the role and the database if they do not exist.
async fn make_missing(client: &Client) -> Result<(), Error> {
    let role = client.query_opt("SELECT FROM pg_roles WHERE rolname = $1", &[&USER]).await?;
    let verb = if role.is_some() { "ALTER" } else { "CREATE" };
    client.batch_execute(&format!("{verb} ROLE {USER} {USER_RIGHTS} PASSWORD '{PASSWORD}'")).await?;
    if client.query_opt("SELECT FROM pg_database WHERE datname = $1", &[&DATABASE]).await?.is_none() {
        client.batch_execute(&format!("CREATE DATABASE {DATABASE} OWNER {USER}")).await?;
    }
    Ok(())
}

/// Returns the databases of a cluster of the first version that still belong to the superuser.
async fn databases_to_hand_over(client: &Client) -> Result<Vec<String>, Error> {
    let databases = "SELECT datname FROM pg_database WHERE datdba = 10 AND datallowconn AND NOT datistemplate \
                     AND EXISTS (SELECT FROM pg_roles WHERE rolname = $1)";
    client.query(databases, &[&INTERIM]).await?.iter().map(|row| row.try_get(0)).collect()
}
