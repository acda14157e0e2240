//! Tests of commits whose answer is lost. The store is a real folder, and faults are injected between it and the table.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::{
    ArrayRef, Date32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use position::Position;
use tempfile::TempDir;

use super::Table;
use crate::{Lake, LakeError};
use crate::{bronze, gold};

/// A store with faults. It can lose the answers to the next puts of log entries, which arrive or not. It can reject puts as S3 does while
/// another put is in progress. It can let another engine's entries come first, or fail all requests.
#[derive(Debug)]
struct Flaky {
    store: Arc<dyn ObjectStore>,
    losses: AtomicUsize,
    arrive: bool,
    conflicts: AtomicUsize,
    rivals: AtomicUsize,
    down: AtomicBool,
}

impl Flaky {
    fn over(store: &Arc<dyn ObjectStore>, losses: usize, arrive: bool) -> Arc<Flaky> {
        Arc::new(Flaky {
            store: Arc::clone(store),
            losses: losses.into(),
            arrive,
            conflicts: 0.into(),
            rivals: 0.into(),
            down: false.into(),
        })
    }

    fn up(&self) -> Result<&dyn ObjectStore> {
        if self.down.load(Ordering::SeqCst) { Err(no_answer()) } else { Ok(self.store.as_ref()) }
    }
}

fn no_answer() -> object_store::Error {
    object_store::Error::Generic { store: "flaky", source: "no answer".into() }
}

impl std::fmt::Display for Flaky {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "flaky {}", self.store)
    }
}

#[async_trait]
impl ObjectStore for Flaky {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let is_entry = location.extension() == Some("json");
        let next = |count: &AtomicUsize| {
            let less = |count: usize| if is_entry { count.checked_sub(1) } else { None };
            count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok()
        };
        if next(&self.conflicts) {
            let source = "409 Conflict".into();
            return Err(object_store::Error::AlreadyExists { path: location.to_string(), source });
        }
        if next(&self.rivals) {
            let entry = r#"{"commitInfo":{"operation":"OPTIMIZE"}}"#.into();
            self.store.put_opts(location, entry, PutMode::Create.into()).await?;
        }
        if !next(&self.losses) {
            return self.up()?.put_opts(location, payload, options).await;
        }
        if self.arrive {
            // The lost answer would also show whether this put came first.
            let _lost = self.store.put_opts(location, payload, options).await;
        }
        Err(no_answer())
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.up()?.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.up()?.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.up() {
            Ok(store) => store.list(prefix),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.up()?.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.up()?.copy_opts(from, to, options).await
    }
}

/// Opens a table whose next `losses` puts of a log entry get no answer.
async fn flaky(losses: usize, arrive: bool) -> (Table, Lake, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(folder.path().to_str().unwrap()).await.unwrap();
    let mut table = Table::open(&lake, bronze("candles")).await.unwrap();
    table.store.objects = Flaky::over(&table.store.objects, losses, arrive);
    (table, lake, folder)
}

fn rows(count: i64) -> RecordBatch {
    let length = usize::try_from(count).unwrap();
    let time = || Arc::new(TimestampMicrosecondArray::from_value(0, length).with_timezone("UTC")) as ArrayRef;
    let float = || Arc::new(Float64Array::from_value(1.0, length)) as ArrayRef;
    let mut columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(vec!["A"; length])), time()];
    columns.extend((0..5).map(|_| float()));
    columns.push(Arc::new(Int32Array::from_value(0, length)));
    columns.push(Arc::new(Int64Array::from_iter_values(0..count)));
    columns.extend([time(), Arc::new(Date32Array::from_value(0, length))]);
    RecordBatch::try_new(schema::bronze::schema(), columns).unwrap()
}

fn at(next: i64) -> Position {
    [(0, next)].into_iter().collect()
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_recognised_at_once() {
    let (mut table, _lake, _folder) = flaky(1, true).await;
    let snapshot = table.append(&[rows(3)], &at(3)).await.unwrap();
    assert_eq!((snapshot.version(), snapshot.row_count()), (1, 3));
}

#[tokio::test]
async fn the_same_call_again_settles_a_commit_that_did_or_did_not_arrive() {
    for arrive in [true, false] {
        let (mut table, lake, _folder) = flaky(3, arrive).await;
        let error = table.append(&[rows(3)], &at(3)).await.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        let snapshot = table.append(&[rows(3)], &at(3)).await.unwrap();
        let reopened = Table::open(&lake, bronze("candles")).await.unwrap().snapshot();
        for snapshot in [snapshot, reopened] {
            assert_eq!(
                (snapshot.version(), snapshot.row_count(), snapshot.file_count()),
                (1, 3, 1),
                "{arrive}"
            );
        }
    }
}

#[tokio::test]
async fn other_rows_after_a_lost_answer_are_refused_when_it_had_arrived() {
    let (mut table, _lake, _folder) = flaky(3, true).await;
    table.append(&[rows(3)], &at(3)).await.unwrap_err();
    let error = table.append(&[rows(2)], &at(2)).await.unwrap_err();
    assert!(matches!(error, LakeError::Moved { .. }), "{error:?}");
    assert_eq!(*table.refresh().await.unwrap().position(), at(3));
}

#[tokio::test]
async fn another_writer_that_comes_between_fences_the_lost_commit() {
    let (mut table, lake, _folder) = flaky(3, false).await;
    table.append(&[rows(3)], &at(3)).await.unwrap_err();
    let mut other = Table::open(&lake, bronze("candles")).await.unwrap();
    other.append(&[rows(2)], &at(2)).await.unwrap();
    let error = table.append(&[rows(3)], &at(3)).await.unwrap_err();
    assert!(matches!(error, LakeError::Fenced { version: 1, .. }), "{error:?}");
}

#[tokio::test]
async fn a_put_beside_another_that_then_fails_is_put_again() {
    let (mut table, lake, _folder) = flaky(0, true).await;
    let store = Flaky::over(&table.store.objects, 0, true);
    store.conflicts.store(2, Ordering::SeqCst);
    table.store.objects = Arc::<Flaky>::clone(&store);
    table.append(&[rows(3)], &at(3)).await.unwrap();

    store.conflicts.store(10, Ordering::SeqCst);
    let error = table.append(&[rows(4)], &at(4)).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    store.conflicts.store(0, Ordering::SeqCst);
    table.append(&[], &at(4)).await.unwrap();
    let snapshot = Table::open(&lake, bronze("candles")).await.unwrap().snapshot();
    assert_eq!((snapshot.version(), snapshot.position().clone()), (2, at(4)));
}

#[tokio::test]
async fn a_table_that_another_engine_changes_all_the_time_is_busy_and_not_taken_over() {
    let (mut table, _lake, _folder) = flaky(0, true).await;
    let store = Flaky::over(&table.store.objects, 0, true);
    store.rivals.store(super::REBASES_MAX + 1, Ordering::SeqCst);
    table.store.objects = store;
    let error = table.append(&[rows(3)], &at(3)).await.unwrap_err();
    assert!(matches!(error, LakeError::Busy { table: "bronze" }) && error.is_transient(), "{error:?}");
    let snapshot = table.append(&[rows(3)], &at(3)).await.unwrap();
    assert_eq!((snapshot.row_count(), snapshot.position().clone()), (3, at(3)));
}

#[tokio::test]
async fn an_outage_is_transient_in_every_call_and_the_table_works_on_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut lake = Lake::open(folder.path().to_str().unwrap()).await.unwrap();
    let store = Flaky::over(&lake.root, 0, false);
    lake.root = Arc::<Flaky>::clone(&store);
    let mut table = Table::open(&lake, bronze("candles")).await.unwrap();
    table.append(&[rows(3)], &at(3)).await.unwrap();

    store.down.store(true, Ordering::SeqCst);
    let range = position::OffsetRange { partition: 0, first: 0, next: 3 };
    let errors = [
        table.append(&[rows(4)], &at(4)).await.unwrap_err(),
        table.append(&[], &at(4)).await.unwrap_err(),
        table.refresh().await.unwrap_err(),
        table.vacuum(Duration::ZERO).await.unwrap_err(),
        table.snapshot().read(range).next().await.unwrap().unwrap_err(),
        Table::open(&lake, bronze("candles")).await.unwrap_err(),
        Table::open(&lake, gold("candles")).await.unwrap_err(),
        crate::log::load(&table.spec, &table.store).await.unwrap_err(),
        lake.probe().await.unwrap_err(),
    ];
    for error in errors {
        assert!(error.is_transient(), "{error:?}");
    }

    store.down.store(false, Ordering::SeqCst);
    let snapshot = table.append(&[], &at(4)).await.unwrap();
    assert_eq!((snapshot.version(), snapshot.row_count()), (2, 3));
}
