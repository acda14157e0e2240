//! Who may do what in the private cluster.
//!
//! The role that people and services log in with is published: it owns the databases, and it can neither run programs of the server's
//! machine nor read its files. The superuser has another name and a random password.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, chown};
use std::path::Path;

use anyhow::Context as _;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Error, NoTls};

/// The role that people and services log in with, and its password.
pub(super) const USER: &str = "postgres";
pub(super) const PASSWORD: &str = "postgres";
/// The cluster's superuser.
pub(super) const SUPERUSER: &str = "candleflight_superuser";
/// File of its password, in the server's folder.
pub(super) const PASSWORD_FILE: &str = "superuser-password";
/// The superuser of a moment: it renames the one that the first version made, who cannot do so itself.
const INTERIM: &str = "candleflight_interim";
/// The database of gold.
pub(super) const DATABASE: &str = "crypto_db";
/// The database that every cluster has.
const MAINTENANCE: &str = "postgres";
/// Superset's metadata, and how the first version called them.
const METADATA: &str = super::super::dashboard::METADATA_DATABASE;
const METADATA_BEFORE: &str = "superset";

/// What a published role may have: databases of its own.
const USER_RIGHTS: &str = "LOGIN CREATEDB NOSUPERUSER NOCREATEROLE NOREPLICATION NOBYPASSRLS";

/// Gives what the superuser owns in a database, the system's own apart, to the role that people log in with: the first version
/// created it all as the superuser.
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

/// Reads the superuser's password from `folder`, or makes one that only the folder's owner can read.
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
    // The server's user, which reads it to make the cluster, owns the folder.
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
    /// Brings roles and databases to what this version has; false while the server starts.
    pub(super) async fn prepare(&self) -> anyhow::Result<bool> {
        let roles = match self.run(SUPERUSER, MAINTENANCE, make_missing).await {
            Err(error) if error.code().is_none_or(|code| *code == SqlState::CANNOT_CONNECT_NOW) => {
                return Ok(false);
            }
            // A cluster of the first version has no such role.
            Err(error) if error.code() == Some(&SqlState::INVALID_PASSWORD) => {
                self.take_over().await.with_context(|| {
                    format!("take over the cluster of an earlier version (or is {PASSWORD_FILE} another cluster's?)")
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

    /// Gives Superset's database of the first version the name of today.
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

    /// Gives what the first version made as the superuser to the role that people log in with.
    async fn hand_over(&self) -> Result<(), Error> {
        let databases = self.run(SUPERUSER, MAINTENANCE, databases_to_hand_over).await?;
        for database in &databases {
            self.run(SUPERUSER, database, async |client| client.batch_execute(HAND_OVER).await).await?;
            let change = format!("ALTER DATABASE \"{}\" OWNER TO {USER}", database.replace('"', "\"\""));
            self.run(SUPERUSER, MAINTENANCE, async |client| client.batch_execute(&change).await).await?;
        }
        // Last: while it is there, a start that was interrupted is done again.
        let end = format!("SET client_min_messages = warning; DROP ROLE IF EXISTS {INTERIM}");
        self.run(SUPERUSER, MAINTENANCE, async |client| client.batch_execute(&end).await).await
    }

    /// Renames the superuser of a cluster of the first version, whose name is published, and gives it a password of its own.
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
            "role {USER} of PostgreSQL is no superuser any more; {SUPERUSER} is, with the password in {PASSWORD_FILE}"
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
            drop(client); // Which ends the connection.
            done
        };
        let (done, connected) = tokio::join!(work, connection);
        connected.and(done)
    }
}

/// Makes the role and the database that are missing.
async fn make_missing(client: &Client) -> Result<(), Error> {
    let role = client.query_opt("SELECT FROM pg_roles WHERE rolname = $1", &[&USER]).await?;
    let verb = if role.is_some() { "ALTER" } else { "CREATE" };
    client.batch_execute(&format!("{verb} ROLE {USER} {USER_RIGHTS} PASSWORD '{PASSWORD}'")).await?;
    if client.query_opt("SELECT FROM pg_database WHERE datname = $1", &[&DATABASE]).await?.is_none() {
        client.batch_execute(&format!("CREATE DATABASE {DATABASE} OWNER {USER}")).await?;
    }
    Ok(())
}

/// Returns the databases of a cluster that is being taken over and that are still the superuser's.
async fn databases_to_hand_over(client: &Client) -> Result<Vec<String>, Error> {
    let databases = "SELECT datname FROM pg_database WHERE datdba = 10 AND datallowconn AND NOT datistemplate \
                     AND EXISTS (SELECT FROM pg_roles WHERE rolname = $1)";
    client.query(databases, &[&INTERIM]).await?.iter().map(|row| row.try_get(0)).collect()
}
