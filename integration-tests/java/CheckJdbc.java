// Asks the Flight SQL server what DBeaver and BI tools ask through the Arrow Flight SQL JDBC driver.
//
// java --add-opens=java.base/java.nio=ALL-UNNAMED -cp DRIVER.jar CheckJdbc.java HOST:PORT ROWS      ROWS: candles of ONE-USD in bronze, none of another symbol

import java.lang.reflect.InvocationTargetException;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Timestamp;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;

class CheckJdbc {
    public static void main(String[] arguments) throws Exception {
        long rows = Long.parseLong(arguments[1]);
        var properties = new Properties();
        properties.put("useEncryption", "false");
        try (var connection = DriverManager.getConnection("jdbc:arrow-flight-sql://" + arguments[0], properties)) {
            var metadata = connection.getMetaData();
            equal("product", metadata.getDatabaseProductName(), "Candleflight");
            equal("read-only", metadata.isReadOnly(), true);
            everythingIsAnswered(metadata);
            equal("schemas", texts(metadata.getSchemas(), "TABLE_SCHEM"), List.of("public", "system"));
            equal("tables", texts(metadata.getTables(null, "public", "%", new String[] {"TABLE"}), "TABLE_NAME"), List.of("bronze", "gold"));
            equal("columns", texts(metadata.getColumns(null, "public", "bronze", "%_time"), "COLUMN_NAME"), List.of("event_time", "kafka_time"));
            equal("key", texts(metadata.getPrimaryKeys(null, "public", "gold"), "COLUMN_NAME"), List.of("symbol", "event_time"));
            equal("foreign keys", texts(metadata.getImportedKeys(null, "public", "gold"), 1), List.of());

            try (var statement = connection.createStatement();
                    var first = statement.executeQuery("SELECT symbol, event_time, open, date FROM bronze ORDER BY event_time LIMIT 1")) {
                equal("a row", first.next(), true);
                equal("text", first.getString(1), "ONE-USD");
                equal("time", first.getTimestamp(2).toInstant(), Instant.parse("2025-01-01T00:00:00Z"));
                equal("number", first.getDouble(3) > 0, true);
                equal("date", first.getDate(4).toString(), "2025-01-01");
            }
            try (var statement = connection.prepareStatement("SELECT count(*) FROM bronze WHERE symbol = ? AND close > ?")) {
                statement.setString(1, "ONE-USD");
                statement.setDouble(2, 0);
                equal("prepared", texts(statement.executeQuery(), 1), List.of(Long.toString(rows)));
                statement.setString(1, "none");
                equal("prepared, again", texts(statement.executeQuery(), 1), List.of("0"));
            }
            try (var statement = connection.prepareStatement("SELECT count(*) FROM bronze WHERE event_time < ?")) {
                statement.setTimestamp(1, Timestamp.from(Instant.parse("2025-01-01T00:01:00Z")));
                equal("a time as parameter", texts(statement.executeQuery(), 1), List.of("1"));
            }
            try (var statement = connection.createStatement()) {
                statement.executeQuery("DELETE FROM bronze");
                throw new AssertionError("DELETE was not refused");
            } catch (SQLException refusal) {
                equal("a refusal says why: " + refusal, refusal.getMessage().contains("DML not supported"), true);
            }
        }
        System.out.println("JDBC: metadata, prepared queries and times are as they should be; " + rows + " rows");
    }

    /** Calls every method without parameters; tools call most of them, and the driver throws where the server has left something out. */
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

    static void equal(String what, Object found, Object expected) {
        if (!expected.equals(found)) {
            throw new AssertionError(what + ": found " + found + ", expected " + expected);
        }
    }
}
