"""node-postgres and pgjdbc, where they are installed; each has a protocol implementation of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fix_proxy import PASSWORDS

NODE_PROGRAM = """
const { Client, Pool } = require('pg');
const assert = require('assert');
(async () => {
  const client = new Client();
  await client.connect();
  let r = await client.query('SELECT item FROM orders WHERE id = $1', [2]);
  assert.equal(r.rows[0].item, 'rocket');
  for (let n = 0; n < 5; n++) {
    r = await client.query({ name: 'inc', text: 'SELECT $1::int + 1 AS n', values: [n] });
    assert.equal(r.rows[0].n, n + 1);
  }
  await assert.rejects(client.query('SELECT 1/0'), { code: '22012' });
  await client.query('BEGIN');
  await client.query("INSERT INTO scratch VALUES (1, 'x')");
  await client.query('ROLLBACK');
  r = await client.query('SELECT count(*)::int AS n FROM scratch; SELECT 2 AS m');
  assert.equal(r[0].rows[0].n, 0);
  assert.equal(r[1].rows[0].m, 2);
  await assert.rejects(client.query('SELECT * FROM beta.orders'), { code: '42501' });
  await client.end();
  const pool = new Pool({ max: 5 });
  const all = await Promise.all([...Array(30).keys()].map(n => pool.query('SELECT $1::int AS n', [n])));
  assert.deepEqual(all.map(r => r.rows[0].n), [...Array(30).keys()]);
  await pool.end();
  console.log('done');
})().catch(e => { console.error(e); process.exit(1); });
"""

JAVA_PROGRAM = """
import java.sql.*;
import java.util.Properties;
public class Probe {
  static void check(boolean good, String what) { if (!good) throw new RuntimeException(what); }
  public static void main(String[] a) throws Exception {
    Properties p = new Properties();
    p.setProperty("user", "acme_app");
    p.setProperty("password", a[1]);
    p.setProperty("prepareThreshold", "2");
    try (Connection c = DriverManager.getConnection(a[0], p)) {
      PreparedStatement s = c.prepareStatement("SELECT item FROM orders WHERE id = ?");
      for (int n = 0; n < 8; n++) {
        s.setInt(1, 2);
        ResultSet r = s.executeQuery();
        r.next();
        check(r.getString(1).equals("rocket"), "row");
      }
      c.setAutoCommit(false);
      Statement t = c.createStatement();
      t.setFetchSize(10);
      ResultSet r = t.executeQuery("SELECT generate_series(1, 100)");
      int sum = 0;
      while (r.next()) sum += r.getInt(1);
      check(sum == 5050, "cursor");
      PreparedStatement batch = c.prepareStatement("INSERT INTO scratch VALUES (?, ?)");
      for (int n = 0; n < 300; n++) { batch.setInt(1, n); batch.setString(2, "x"); batch.addBatch(); }
      check(batch.executeBatch().length == 300, "batch");
      Savepoint point = c.setSavepoint();
      try { t.execute("SELECT 1/0"); check(false, "no error"); }
      catch (SQLException e) { check(e.getSQLState().equals("22012"), e.getSQLState()); }
      c.rollback(point);
      c.rollback();
      ResultSet tables = c.getMetaData().getTables(null, "acme", "ord%", new String[]{"TABLE"});
      check(tables.next() && tables.getString("TABLE_NAME").equals("orders"), "metadata");
      c.rollback();
    }
    System.out.println("done");
  }
}
"""


def test_node_postgres(each_mode, tmp_path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on this machine")
    found = subprocess.run([node, "-e", "require('pg')"], capture_output=True, check=False)
    if found.returncode:
        pytest.skip("node has no package pg: npm install --prefix DIR pg, and NODE_PATH=DIR/node_modules")
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("PG")},
        "PGHOST": each_mode.host,
        "PGPORT": str(each_mode.port),
        "PGUSER": "acme_app",
        "PGPASSWORD": PASSWORDS["acme_app"],
        "PGDATABASE": "app",
    }
    done = subprocess.run(
        [node, "-e", NODE_PROGRAM], env=environment, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.stdout.strip() == "done", done.stderr


def test_pgjdbc(each_mode, tmp_path):
    java = shutil.which("java")
    jars = [
        Path(p)
        for p in (os.environ.get("PGJDBC_JAR", ""), "/usr/share/java/postgresql.jar")
        if p and Path(p).exists()
    ]
    if java is None or not jars:
        pytest.skip("no java, or no pgjdbc: PGJDBC_JAR=…, or the distribution's libpostgresql-jdbc-java")
    source = tmp_path / "Probe.java"
    source.write_text(JAVA_PROGRAM)
    url = f"jdbc:postgresql://{each_mode.host}:{each_mode.port}/app"
    command = [java, "-cp", str(jars[0]), str(source), url, PASSWORDS["acme_app"]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=55, check=False)
    assert done.stdout.strip() == "done", done.stderr
