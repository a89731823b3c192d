package archive_test

import (
	"database/sql"
	"errors"
	"fmt"
	"testing"

	"chatxray/pipeline/archive"
)

// Transactions of both indexes do the same, at once or later: what fails undoes what it should and nothing else, whenever it is told.
func TestTransactions(t *testing.T) { onEach(t, transactions) }

func transactions(t *testing.T) {
	a := open(t, t.TempDir(), archive.Options{})
	ctx := t.Context()
	begin := func() *archive.Transaction {
		tx, err := a.Transaction(ctx)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(tx.Rollback)
		return tx
	}
	put := func(tx *archive.Transaction, study string) error {
		return tx.Exec(ctx, "INSERT INTO life (study, state, since, open) VALUES (?, 'queued', 1, ?)", study, true)
	}
	bad := func(tx *archive.Transaction) error {
		return errors.Join(tx.Exec(ctx, "INSERT INTO life (study, state, since, open) VALUES (?, ?, 1, 1)", "bad", nil), tx.Flush(ctx))
	}
	count := func(tx *archive.Transaction) (n int) {
		if err := tx.Row(ctx, "SELECT count(*) FROM life").Scan(&n); err != nil {
			t.Error(err)
		}
		return n
	}
	expect := func(want int) {
		t.Helper()
		tx := begin()
		defer tx.Rollback()
		if n := count(tx); n != want {
			t.Errorf("%d rows are kept, want %d", n, want)
		}
	}

	// More than waits at a time, asked for in two ways at once, and kept.
	tx := begin()
	for i := range 600 {
		if err := put(tx, fmt.Sprintf("1.%03d", i)); err != nil {
			t.Fatal(err)
		}
	}
	first, none := tx.Row(ctx, "SELECT study, open, next FROM life WHERE study = ?1 AND state = 'que' || 'ued'", "1.007"), tx.Row(ctx, "SELECT study FROM life WHERE study = 'x'")
	var study string
	var isOpen bool
	var next int64
	if err := none.Scan(&study); !errors.Is(err, sql.ErrNoRows) {
		t.Errorf("no row: %v", err)
	}
	if err := first.Scan(&study, &isOpen, &next); err != nil || study != "1.007" || !isOpen || next != 0 {
		t.Error(study, isOpen, next, err)
	}
	all, err := tx.Rows(ctx, "SELECT study, open FROM life WHERE study > ? ORDER BY study", "1.596")
	if err != nil {
		t.Fatal(err)
	}
	found := ""
	for all.Next() {
		if err := all.Scan(&study, &isOpen); err != nil {
			t.Error(err)
		}
		found += study + " "
	}
	if err := errors.Join(all.Err(), all.Close()); err != nil || found != "1.597 1.598 1.599 " {
		t.Error(found, err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	tx.Rollback()
	expect(600)

	// Nothing was sent, something was sent.
	for n := range 2 {
		tx := begin()
		if n > 0 {
			if err := errors.Join(put(tx, "2"), tx.Flush(ctx)); err != nil {
				t.Error(err)
			}
		} else if err := put(tx, "2"); err != nil {
			t.Error(err)
		}
		tx.Rollback()
		if err := tx.Row(ctx, "SELECT count(*) FROM life").Scan(&n); !errors.Is(err, sql.ErrTxDone) {
			t.Errorf("asked after the end: %v", err)
		}
	}
	expect(600)

	// What fails apart undoes what is apart.
	tx = begin()
	if err := errors.Join(put(tx, "3.1"), tx.Exec(ctx, "SAVEPOINT one"), put(tx, "3.2")); err != nil {
		t.Error(err)
	}
	if err := bad(tx); err == nil {
		t.Error("a row without a state was taken")
	}
	if err := errors.Join(tx.Script(ctx, "ROLLBACK TO one"), tx.Exec(ctx, "RELEASE one"), put(tx, "3.3")); err != nil {
		t.Error(err)
	}
	if n := count(tx); n != 602 {
		t.Errorf("%d rows", n)
	}
	if err := tx.Commit(); err != nil {
		t.Error(err)
	}
	expect(602)
}

// In PostgreSQL an error ends a transaction: nothing of it is kept then, and whoever wants to keep it is told so, if nobody was before.
func TestFailedTransaction(t *testing.T) {
	t.Run("postgres", func(t *testing.T) {
		a := open(t, t.TempDir(), archive.Options{})
		ctx := t.Context()
		for _, told := range []bool{false, true} {
			tx, err := a.Transaction(ctx)
			if err != nil {
				t.Fatal(err)
			}
			err = tx.Exec(ctx, "INSERT INTO life (study, state, since, open) VALUES (?, 'queued', 1, 1)", "1")
			if err == nil {
				err = tx.Exec(ctx, "INSERT INTO life (study, state, since, open) VALUES (?, ?, 1, 1)", "2", nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			if told && tx.Flush(ctx) == nil {
				t.Error("a row without a state was taken")
			}
			if err := tx.Commit(); err == nil {
				t.Error("a transaction that failed was kept")
			}
			tx.Rollback()
			if _, err := a.Life(ctx, "1"); err == nil {
				t.Error("a row of a transaction that failed was kept")
			}
		}

		// A statement that the server does not understand takes all with it that waited: a savepoint, so that what would be undone is more than should be.
		tx, err := a.Transaction(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		put := "INSERT INTO life (study, state, since, open) VALUES (?, 'queued', 1, 1)"
		err = errors.Join(tx.Exec(ctx, "SAVEPOINT one"), tx.Exec(ctx, put, "1"), tx.Flush(ctx), tx.Exec(ctx, "RELEASE one"), tx.Exec(ctx, "SAVEPOINT one"), tx.Exec(ctx, put, "2"))
		if err != nil {
			t.Fatal(err)
		}
		var study string
		if err := tx.Row(ctx, "SELECT nothing FROM life WHERE study = ?", "1").Scan(&study); err == nil {
			t.Error("a column that is not there was read")
		}
		if err := tx.Script(ctx, "ROLLBACK TO one"); err == nil {
			t.Error("a savepoint was gone back to that is another's")
		}
		if err := tx.Commit(); err == nil {
			t.Error("a transaction was kept of which something was never done")
		}
	})
}
