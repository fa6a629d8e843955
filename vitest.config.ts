import { defineConfig } from 'vitest/config';

const native = { experimental: { viteModuleRunner: false } } as const;

export default defineConfig({
  test: {
    pool: 'forks',
    unstubEnvs: true,
    restoreMocks: true,
    projects: [
      { test: { name: 'unit', include: ['test/unit/**/*.test.ts'], testTimeout: 1_000, pool: 'forks', ...native } },
      {
        test: {
          name: 'integration',
          include: ['test/integration/**/*.test.ts', 'test/conformance/**/*.test.ts'],
          // They start engines and move containers on a machine that may be busy.
          testTimeout: 120_000,
          hookTimeout: 180_000,
          fileParallelism: false,
          pool: 'forks',
          ...native,
        },
      },
    ],
  },
});
