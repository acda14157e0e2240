// Makes the calls of DBeaver and BI tools to the Flight SQL server through the Arrow Flight SQL JDBC driver.
//
// java --add-opens=java.base/java.nio=ALL-UNNAMED -cp DRIVER.jar CheckJdbc.java HOST:PORT full ROWS [PROPERTY=VALUE…]
//                                               ROWS: candles of ONE-USD from 2025-01-01 in bronze, none of another symbol
// … HOST:PORT count ROWS [PROPERTY=VALUE…]      one query only
// … HOST:PORT refused WORD [PROPERTY=VALUE…]    the log-in must fail with a message that contains WORD

import java.lang.reflect.InvocationTargetException;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Timestamp;
import java.sql.Types;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Calendar;
import java.util.List;
import java.util.Properties;
import java.util.TimeZone;
import java.util.Timer;
import java.util.TimerTask;

class CheckJdbc {
    static final Instant START = Instant.parse("2025-01-01T00:00:00Z");
    /** Version whose getObject() on a time throws, whatever the server sends. getTimestamp() and getString() work. */
    static final String FAULTY_DRIVER = "18.3.0";

    public static void main(String[] arguments) throws Exception {
        var properties = new Properties();
        for (var index = 3; index < arguments.length; index++) {
            var property = arguments[index].split("=", 2);
            properties.put(property[0], property[1]);
        }
        var url = "jdbc:arrow-flight-sql://" + arguments[0];
        if (arguments[1].equals("refused")) {
            try (var connection = DriverManager.getConnection(url, properties)) {
                // With neither password nor token the driver connects without a log-in.
                texts(connection, "SELECT 1");
                throw new AssertionError("the log-in was not refused");
            } catch (SQLException refusal) {
                equal("the error contains the reason: " + refusal, allOf(refusal).contains(arguments[2]), true);
            }
            return;
        }
        long rows = Long.parseLong(arguments[2]);
        try (var connection = DriverManager.getConnection(url, properties)) {
            equal("rows", texts(connection, "SELECT count(*) FROM bronze"), List.of(Long.toString(rows)));
            if (arguments[1].equals("full")) {
                checkConnection(connection);
                checkMetadata(connection.getMetaData());
                checkValues(connection);
                checkParameters(connection, rows);
                checkRowCounts(connection);
                checkLargeResults(connection, rows);
                checkRefusals(connection);
                checkCancellation(connection);
            }
        }
        System.out.println("JDBC: all answers are correct; " + rows + " rows");
    }

    /** Makes the calls of tools on a connection that they have just opened. */
    static void checkConnection(Connection connection) throws SQLException {
        equal("valid", connection.isValid(5), true);
        equal("read-only", connection.isReadOnly(), true);
        equal("auto-commit", connection.getAutoCommit(), true);
        connection.setAutoCommit(true);
        connection.setReadOnly(true);
        connection.setSchema("public");
        connection.commit();
        equal("a look", texts(connection, "SELECT 1"), List.of("1"));
    }

    static void checkMetadata(DatabaseMetaData metadata) throws Exception {
        equal("product", metadata.getDatabaseProductName(), "Candleflight");
        equal("read-only", metadata.isReadOnly(), true);
        everythingIsAnswered(metadata);
        equal("catalogs", texts(metadata.getCatalogs(), "TABLE_CAT"), List.of("candleflight"));
        equal("schemas", texts(metadata.getSchemas(), "TABLE_SCHEM"), List.of("public", "system"));
        equal("some schemas", texts(metadata.getSchemas("candleflight", "pub%"), "TABLE_SCHEM"), List.of("public"));
        equal("types", texts(metadata.getTableTypes(), "TABLE_TYPE"), List.of("TABLE"));
        equal("tables", texts(metadata.getTables(null, "public", "%", new String[] {"TABLE"}), "TABLE_NAME"), List.of("bronze", "gold"));
        equal("all tables", texts(metadata.getTables("candleflight", null, null, null), "TABLE_NAME").size(), 10);
        equal("views", texts(metadata.getTables(null, null, "%", new String[] {"VIEW"}), 1), List.of());
        // DBeaver escapes characters that would be wildcards in a name.
        equal("escaped", texts(metadata.getTables(null, null, "dead\\_letters", null), "TABLE_NAME"), List.of("dead_letters"));
        equal("columns", texts(metadata.getColumns(null, "public", "bronze", "%_time"), "COLUMN_NAME"), List.of("event_time", "kafka_time"));
        equal("nulls", texts(metadata.getColumns(null, "public", "gold", "price_%_5m"), "IS_NULLABLE"), List.of("NO", "YES"));
        equal("numbers", texts(metadata.getColumns(null, "public", "gold", "price_ma_%"), "DATA_TYPE"), List.of("8", "8", "8"));
        equal("positions", texts(metadata.getColumns(null, "public", "bronze", null), "ORDINAL_POSITION").size(), 11);
        equal("key", texts(metadata.getPrimaryKeys(null, "public", "gold"), "COLUMN_NAME"), List.of("symbol", "event_time"));
        equal("no key", texts(metadata.getPrimaryKeys(null, "system", "lag"), 1), List.of());
        for (var nothing : List.of(
                metadata.getImportedKeys(null, "public", "gold"),
                metadata.getExportedKeys("candleflight", "public", "gold"),
                metadata.getCrossReference(null, "public", "gold", null, "public", "bronze"),
                metadata.getIndexInfo(null, "public", "gold", false, true),
                metadata.getBestRowIdentifier(null, "public", "gold", DatabaseMetaData.bestRowSession, true),
                metadata.getVersionColumns(null, "public", "gold"),
                metadata.getTablePrivileges(null, "public", "gold"),
                metadata.getColumnPrivileges(null, "public", "gold", "%"),
                metadata.getPseudoColumns(null, "public", "gold", "%"),
                metadata.getFunctions(null, null, "%"),
                metadata.getFunctionColumns(null, null, "%", "%"),
                metadata.getProcedures(null, null, "%"),
                metadata.getProcedureColumns(null, null, "%", "%"),
                metadata.getUDTs(null, null, "%", null),
                metadata.getSuperTables(null, null, "%"),
                metadata.getAttributes(null, null, "%", "%"))) {
            equal("nothing", texts(nothing, 1), List.of());
        }
    }

    /** Calls every method without parameters. Tools call most of them, and the driver throws if the server lacks something. */
    static void everythingIsAnswered(DatabaseMetaData metadata) throws Exception {
        for (var method : DatabaseMetaData.class.getMethods()) {
            if (method.getParameterCount() == 0) {
                try {
                    if (method.invoke(metadata) instanceof ResultSet result) {
                        result.close();
                    }
                } catch (InvocationTargetException error) {
                    throw new AssertionError(method.getName(), error.getCause());
                }
            }
        }
    }

    /** Reads every column, of any type, as tools do. */
    static void checkValues(Connection connection) throws SQLException {
        try (var statement = connection.createStatement();
                var first = statement.executeQuery("SELECT * FROM bronze ORDER BY event_time LIMIT 1")) {
            equal("a row", first.next(), true);
            equal("text", first.getString("symbol"), "ONE-USD");
            equal("time", first.getTimestamp("event_time").toInstant(), START);
            equal("time in a zone", first.getTimestamp("event_time", utc()).toInstant(), START);
            equal("time as text", first.getString("event_time").substring(0, 10), "2025-01-01");
            equal("number", first.getDouble("open") > 0, true);
            equal("date", first.getDate("date").toString(), "2025-01-01");
            var isFaulty = connection.getMetaData().getDriverVersion().equals(FAULTY_DRIVER);
            var columns = first.getMetaData();
            equal("columns", columns.getColumnCount(), 11);
            for (var column = 1; column <= columns.getColumnCount(); column++) {
                equal(columns.getColumnLabel(column) + " as text", first.getString(column) != null, true);
                if (!isFaulty || columns.getColumnType(column) != Types.TIMESTAMP_WITH_TIMEZONE) {
                    equal(columns.getColumnLabel(column), first.getObject(column) != null, true);
                }
            }
            if (!isFaulty) {
                equal("time as object", ((Timestamp) first.getObject("event_time")).toInstant(), START);
            }
        }
    }

    static void checkParameters(Connection connection, long rows) throws SQLException {
        var all = List.of(Long.toString(rows));
        try (var statement = connection.prepareStatement("SELECT count(*) FROM bronze WHERE symbol = ? AND close > ?")) {
            equal("announced", statement.getParameterMetaData().getParameterCount(), 2);
            statement.setString(1, "ONE-USD");
            statement.setDouble(2, 0);
            equal("prepared", texts(statement), all);
            statement.setString(1, "none");
            equal("prepared, again", texts(statement), List.of("0"));
            statement.setNull(1, Types.VARCHAR);
            equal("null", texts(statement), List.of("0"));
        }
        try (var statement = connection.prepareStatement("SELECT count(*) FROM bronze WHERE event_time < ?")) {
            statement.setTimestamp(1, Timestamp.from(START.plusSeconds(60)));
            equal("a time as parameter", texts(statement), List.of("1"));
            statement.setTimestamp(1, Timestamp.from(START.plusSeconds(120)), utc());
            equal("a time in a zone", texts(statement), List.of("2"));
            statement.setObject(1, Timestamp.from(START));
            equal("a time as object", texts(statement), List.of("0"));
        }
        try (var statement = connection.prepareStatement("SELECT count(*) FROM bronze WHERE kafka_offset < ? AND kafka_partition >= ? AND date >= ?")) {
            statement.setLong(1, Long.MAX_VALUE);
            statement.setInt(2, 0);
            statement.setDate(3, java.sql.Date.valueOf("2025-01-01"));
            equal("numbers and a date", texts(statement), all);
        }
    }

    static void checkRowCounts(Connection connection) throws SQLException {
        try (var statement = connection.prepareStatement("SELECT event_time FROM bronze ORDER BY event_time LIMIT ? OFFSET ?")) {
            statement.setLong(1, 3);
            statement.setLong(2, 1);
            equal("the rows asked for", texts(statement).size(), 3);
            statement.setInt(1, 2);
            equal("and fewer", texts(statement).size(), 2);
        }
    }

    static void checkLargeResults(Connection connection, long rows) throws SQLException {
        try (var statement = connection.createStatement()) {
            try (var result = statement.executeQuery("SELECT bronze.* FROM bronze CROSS JOIN generate_series(1, 20)")) {
                var read = 0L;
                while (result.next()) {
                    read++;
                }
                equal("all rows", read, 20 * rows);
            }
            try (var result = statement.executeQuery("SELECT repeat(symbol, 900000) FROM bronze LIMIT 1")) {
                result.next();
                equal("a row larger than a message", result.getString(1).length(), 900_000 * "ONE-USD".length());
            }
            statement.setFetchSize(3);
            statement.setMaxRows(7);
            equal("the first rows", texts(statement.executeQuery("SELECT * FROM bronze"), 1).size(), 7);
        }
    }

    static void checkRefusals(Connection connection) throws SQLException {
        for (var refused : List.of(
                new String[] {"DELETE FROM bronze", "DML not supported"},
                new String[] {"CREATE TABLE mine (a int)", "DDL not supported"},
                new String[] {"SELEC 1", "SELEC"},
                new String[] {"SELECT nothing FROM bronze", "nothing"},
                new String[] {"SELECT CAST(symbol AS int) FROM bronze", "ONE-USD"})) {
            try {
                texts(connection, refused[0]);
                throw new AssertionError(refused[0] + " was not refused");
            } catch (SQLException refusal) {
                equal("the error contains the reason: " + refusal, refusal.getMessage().contains(refused[1]), true);
            }
        }
    }

    /** Cancels an endless query before its first row, and then uses the connection again. */
    static void checkCancellation(Connection connection) throws SQLException {
        try (var statement = connection.createStatement()) {
            var timer = new Timer(true);
            timer.schedule(new TimerTask() {
                public void run() {
                    try {
                        statement.cancel();
                    } catch (SQLException error) {
                        System.err.println("cancel: " + error);
                    }
                }
            }, 300);
            texts(statement.executeQuery("SELECT sum(a.value * b.value) FROM generate_series(1, 10000000) a CROSS JOIN generate_series(1, 10000000) b"), 1);
            throw new AssertionError("the query was not cancelled");
        } catch (SQLException cancelled) {
            equal("cancelled: " + cancelled, cancelled.getMessage().toLowerCase().contains("cancel"), true);
        }
        equal("after a cancellation", texts(connection, "SELECT 2"), List.of("2"));
    }

    static Calendar utc() {
        return Calendar.getInstance(TimeZone.getTimeZone("UTC"));
    }

    static List<String> texts(Connection connection, String query) throws SQLException {
        try (var statement = connection.createStatement()) {
            return texts(statement.executeQuery(query), 1);
        }
    }

    static List<String> texts(PreparedStatement statement) throws SQLException {
        return texts(statement.executeQuery(), 1);
    }

    static List<String> texts(ResultSet result, String column) throws SQLException {
        return texts(result, result.findColumn(column));
    }

    static List<String> texts(ResultSet result, int column) throws SQLException {
        var texts = new ArrayList<String>();
        while (result.next()) {
            texts.add(result.getString(column));
        }
        result.close();
        return texts;
    }

    /** Returns the messages of an error and its causes. */
    static String allOf(Throwable error) {
        return error == null ? "" : error + allOf(error.getCause());
    }

    static void equal(String what, Object found, Object expected) {
        if (!expected.equals(found)) {
            throw new AssertionError(what + ": found " + found + ", expected " + expected);
        }
    }
}
