// Command river measures River on PostgreSQL: no-op jobs, single or in chains in which each job inserts the next one.
//
// Usage: river -dsn DSN -runs R -steps S. It prints one JSON line: moves (jobs completed), seconds.
//
// The settings are those of River's own `river bench`. As there, all first jobs are inserted before the clock starts,
// and a job counts when its completion is stored. A job of a chain inserts the next one by a plain Insert and not in
// the transaction of its completion, which is slower and what an application would need for the same guarantee as ours.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

const (
	warmUpRuns  = 200
	maxWorkers  = 2000
	connections = 32
	insertBatch = 5000
	limit       = 80 * time.Second
)

// StepArgs is what a job is stored with.
type StepArgs struct {
	// Left is how many jobs of the chain come after this one.
	Left int `json:"left"`
}

// Kind names the job.
func (StepArgs) Kind() string { return "step" }

// StepWorker does nothing but to see to the next job of the chain.
type StepWorker struct {
	river.WorkerDefaults[StepArgs]
}

// Work handles one job.
func (*StepWorker) Work(ctx context.Context, job *river.Job[StepArgs]) error {
	if job.Args.Left == 0 {
		return nil
	}
	_, err := river.ClientFromContext[pgx.Tx](ctx).Insert(ctx, StepArgs{Left: job.Args.Left - 1}, nil)
	return err
}

func main() {
	dsn := flag.String("dsn", "", "an empty database")
	runs := flag.Int("runs", 0, "chains")
	steps := flag.Int("steps", 1, "jobs in a chain")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	seconds, err := measure(ctx, *dsn, *runs, *steps)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_ = json.NewEncoder(os.Stdout).Encode(map[string]any{"moves": *runs * *steps, "seconds": seconds})
}

func measure(ctx context.Context, dsn string, runs, steps int) (float64, error) {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return 0, err
	}
	config.MaxConns = connections
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return 0, err
	}
	defer pool.Close()
	driver := riverpgxv5.New(pool)
	migrator, err := rivermigrate.New(driver, nil)
	if err != nil {
		return 0, err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return 0, err
	}
	if _, err := workOff(ctx, driver, warmUpRuns, steps); err != nil {
		return 0, err
	}
	return workOff(ctx, driver, runs, steps)
}

// workOff inserts the chains, starts a client, and returns how long it took until all of their jobs were completed.
func workOff(ctx context.Context, driver *riverpgxv5.Driver, runs, steps int) (float64, error) {
	workers := river.NewWorkers()
	river.AddWorker(workers, &StepWorker{})
	client, err := river.NewClient(driver, &river.Config{
		FetchCooldown:     2 * time.Millisecond,
		FetchPollInterval: 20 * time.Millisecond,
		Logger:            slog.New(slog.NewTextHandler(io.Discard, nil)),
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: maxWorkers}},
		Workers:           workers,
	})
	if err != nil {
		return 0, err
	}
	jobs := runs * steps
	events, stop := client.SubscribeConfig(&river.SubscribeConfig{
		ChanSize: jobs,
		Kinds:    []river.EventKind{river.EventKindJobCompleted, river.EventKindJobFailed},
	})
	defer stop()
	if err := insert(ctx, client, runs, steps); err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := client.Start(ctx); err != nil {
		return 0, err
	}
	for range jobs {
		select {
		case event := <-events:
			if event.Kind != river.EventKindJobCompleted {
				return 0, fmt.Errorf("job %d: %s", event.Job.ID, event.Kind)
			}
		case <-ctx.Done():
			return 0, errors.New("the jobs were not completed in time")
		}
	}
	seconds := time.Since(begin).Seconds()
	return seconds, client.Stop(ctx)
}

func insert(ctx context.Context, client *river.Client[pgx.Tx], runs, steps int) error {
	for done := 0; done < runs; done += insertBatch {
		batch := make([]river.InsertManyParams, min(insertBatch, runs-done))
		for n := range batch {
			batch[n].Args = StepArgs{Left: steps - 1}
		}
		if _, err := client.InsertManyFast(ctx, batch); err != nil {
			return err
		}
	}
	return nil
}
