import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/global-setup.ts'],
    // Servers and processes are started: on a busy machine a second is not long.
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // More than the two cores of CI, since much of the work is waiting for servers and processes.
    maxWorkers: 3,
  },
});
