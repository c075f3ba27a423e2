// node-postgres in one process for all tenants: a small pool for each that is in use.
//
//   SHOP_DSN=postgresql://shop:SECRET@127.0.0.1:6432 node shop.js migrate acme
//   SHOP_DSN=… node shop.js order acme anvil
'use strict';
const { Pool } = require('pg');

const pools = new Map();

// The database's name says which tenant. A few connections are enough, and are let go when idle:
// the proxy keeps the backends.
function poolOf(tenant) {
  if (!/^[a-z0-9_][a-z0-9_-]{0,62}$/.test(tenant)) throw new Error('no name of a tenant');
  let pool = pools.get(tenant);
  if (!pool) {
    const url = new URL(process.env.SHOP_DSN);
    url.pathname = `/${tenant}`;
    pool = new Pool({ connectionString: url.href, max: 5, idleTimeoutMillis: 10_000 });
    pool.on('error', () => {}); // of an idle connection: the next query opens another
    pools.set(tenant, pool);
  }
  return pool;
}

async function main(verb, tenant, item) {
  const pool = poolOf(tenant);
  if (verb === 'migrate') {
    await pool.query(`CREATE TABLE IF NOT EXISTS orders (
      id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
      item text NOT NULL, ordered_at timestamptz NOT NULL DEFAULT now())`);
    return;
  }
  // what belongs together runs on one connection; pool.query takes any
  const client = await pool.connect();
  try {
    await client.query('BEGIN');
    await client.query('INSERT INTO orders (item) VALUES ($1)', [item]);
    const { rows } = await client.query('SELECT item FROM orders ORDER BY id');
    await client.query('COMMIT');
    console.log(rows.map((row) => row.item).join(' '));
  } catch (error) {
    await client.query('ROLLBACK').catch(() => {});
    throw error;
  } finally {
    client.release();
  }
}

main(...process.argv.slice(2))
  .catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  })
  .finally(() => Promise.all([...pools.values()].map((pool) => pool.end())));
