// What `@apphub/filestore/testing` exports: test databases for services. Never imported by the other entry points.
export {
  createTestDatabase,
  type TestDatabase,
  type TestDatabaseOptions,
  type TestServerSource,
} from './create-test-database.ts';
export type { NodeId } from './make-older.ts';
export type { TestLevel } from './server-state.ts';
export { startTestServer, type TestServer } from './start-test-server.ts';
