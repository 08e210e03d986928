import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/global-setup.ts'],
    // Servers and processes are started: on a busy machine a second is not long.
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // Half of the work is waiting for servers.
    maxWorkers: 2,
  },
});
