// The least that a program can do with a database: what a run with nothing to do is compared with.
import pg from 'pg';

const client = new pg.Client(process.env.DATABASE_URL);
await client.connect();
await client.query('select 1');
await client.end();
