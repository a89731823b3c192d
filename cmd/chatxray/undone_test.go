package main

import (
	"bytes"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"chatxray/dicomweb"
	"chatxray/pipeline"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/dicom"
	"chatxray/pipeline/jobs"
)

// undoneService answers about studies 1.2.1 and so on, each reported, whose deliveries are as given, by study and destination; pacs and share are configured. Nobody works.
func undoneService(t *testing.T, deliveries []map[string]*pipeline.Delivery) (root string, a *archive.Archive) {
	t.Helper()
	a, err := archive.Open(t.TempDir(), dicom.OpenFile, archive.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	for i, to := range deliveries {
		study := "1.2." + string(rune('1'+i))
		var d pipeline.Dataset
		for tag, v := range map[pipeline.Tag]string{pipeline.TagSOPClassUID: "1.2.840.10008.5.1.4.1.1.1.1", pipeline.TagSOPInstanceUID: study + ".1.1",
			pipeline.TagStudyInstanceUID: study, pipeline.TagSeriesInstanceUID: study + ".1"} {
			d.SetText(tag, "UI", v)
		}
		b, err := dicom.Encode(d)
		if err != nil {
			t.Fatal(err)
		}
		st, err := a.Stage(t.Context(), bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if o := a.Commit(t.Context(), []*pipeline.Staged{st})[0]; o.Err != nil {
			t.Fatal(o.Err)
		}
		now := time.Now()
		if _, err := a.UpdateRecord(t.Context(), pipeline.Life{StudyInstanceUID: study}, "k", func(r *pipeline.Record) {
			r.State, r.Completed, r.Reported, r.Deliveries = pipeline.StateReported, now, now, to
		}, pipeline.Change{At: now, State: pipeline.StateReported}); err != nil {
			t.Fatal(err)
		}
	}
	claims, err := jobs.Open(t.Context(), jobs.Default())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = claims.Close() })
	line := &pipeline.Line{Config: pipeline.DefaultLine(), Archive: a, Studies: claims.Queue("studies"), Claims: claims, Worker: "here", Now: time.Now, Log: zerolog.Nop(),
		Destinations: []pipeline.Destination{{Name: "pacs", Queue: claims.Queue("to:pacs")}, {Name: "share", Queue: claims.Queue("to:share")}}}
	cfg := dicomweb.Default()
	const token = "0123456789abcdef0123456789abcdef"
	cfg.Auth.Tokens = []dicomweb.Token{{Name: "ada", Token: token, Roles: []dicomweb.Role{dicomweb.RoleRead, dicomweb.RoleAdmin}}}
	guard, err := dicomweb.NewGuard(cfg, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(dicomweb.New(cfg, a, dicomweb.Deps{Lookup: dicom.Lookup, Keyword: dicom.Keyword, Log: zerolog.Nop(), Guard: guard,
		Readings: readings{line, a, nil}, Work: line, Imaging: imaging()}))
	t.Cleanup(server.Close)
	t.Setenv("CHATXRAY_SEND_TOKEN", token)
	return server.URL + dicomweb.Root, a
}

// says runs a command and looks for its exit code and for each of the texts in what it prints; one that begins with ! must not be there.
func says(t *testing.T, want int, texts []string, args ...string) {
	t.Helper()
	code, out, errs := command(t, "", args...)
	ok := code == want
	for _, text := range texts {
		no, negated := strings.CutPrefix(text, "!")
		ok = ok && strings.Contains(out+errs, no) != negated
	}
	if !ok {
		t.Errorf("%v: exit code %d, want %d with %q:\n%s%s", args, code, want, texts, out, errs)
	}
}

// TestUndone looks at what is not done, takes it up and drops it, by the commands of the product.
func TestUndone(t *testing.T) {
	next, failed := time.Now().Add(time.Hour), "destination pacs answers 500"
	long := "destination pacs " + strings.Repeat("refuses instances ", 10)
	root, a := undoneService(t, []map[string]*pipeline.Delivery{
		{"pacs": {Attempts: 1, Error: long, Dead: true, GivenUp: time.Now()}},
		{"pacs": {Attempts: 3, Error: failed, Next: next}, "share": {Delivered: time.Now()}},
		{"pacs": {Attempts: 1, Error: failed, Next: next}},
		{"closed": {}},
	})
	again := "again at " + next.Local().Format("2006-01-02 15:04:05")
	says(t, 0, []string{"failed 3 times, " + again, "failed once, " + again, "refuses instances refuses…", "no destination of this name"}, "jobs", "list", root)
	says(t, 0, []string{"failed 3 times, " + again, failed, "!on its way"}, "deliveries", "show", root, "1.2.2")
	says(t, 0, []string{"pacs: failed 3 times, " + again + "", "share: delivered"}, "studies", "show", root, "1.2.2")

	// Who it was, and that it was given up, and when.
	says(t, 0, []string{"it is given up"}, "deliveries", "drop", root, "1.2.2", "--destination", "pacs")
	says(t, 0, []string{"given up 20", "dropped by token:ada; before that: " + failed, "!again"}, "deliveries", "show", root, "1.2.2")
	says(t, 0, []string{"reported   the delivery to pacs is given up: dropped by token:ada"}, "studies", "timeline", root, "1.2.2")
	says(t, exitServer, []string{"409", "is on its way"}, "deliveries", "drop", root, "1.2.2", "--destination", "pacs")
	says(t, 0, []string{"taken up again"}, "jobs", "retry", root, "1.2.2", "--destination", "pacs")
	says(t, 0, []string{"the delivery to pacs is taken up again, asked for by token:ada"}, "studies", "timeline", root, "1.2.2")
	if l, err := a.Life(t.Context(), "1.2.2"); err != nil || l.State != pipeline.StateReported {
		t.Errorf("the study is %s, %v", l.State, err)
	}
	if err := a.Move(t.Context(), pipeline.Life{StudyInstanceUID: "1.2.2"}, pipeline.Change{At: time.Now(), State: pipeline.StateQueued}); err != nil {
		t.Fatal(err)
	}
	says(t, 0, []string{"it is given up"}, "jobs", "drop", root, "1.2.2")
	says(t, 0, []string{"given up", "dropped by token:ada"}, "jobs", "show", root, "1.2.2")
	says(t, 0, []string{"taken up again"}, "jobs", "retry", root, "1.2.2")
	says(t, 0, []string{"asked for by token:ada"}, "studies", "timeline", root, "1.2.2")

	// A name that nobody knows, and one that only what waits knows.
	for _, command := range [][]string{{"list", root}, {"retry", root, "1.2.1"}, {"drop", root, "1.2.1"}, {"retry", root, "--all"}, {"drop", root, "--all"}} {
		says(t, exitServer, []string{"404", `no destination \"nope\"; the configuration names pacs, share`}, slices.Concat([]string{"deliveries"}, command, []string{"--destination", "nope"})...)
	}
	says(t, 0, []string{"1.2.4", "!1.2.1"}, "deliveries", "list", root, "--destination", "closed")
	says(t, exitServer, []string{"404"}, "deliveries", "retry", root, "1.2.4", "--destination", "closed")

	// All of them are meant only by who says so; nothing is not told as something.
	for _, verb := range []string{"retry", "drop"} {
		says(t, exitUsage, []string{"--all"}, "deliveries", verb, root, "--destination", "pacs")
		says(t, exitUsage, []string{"--all"}, "deliveries", verb, root, "1.2.1", "--all", "--destination", "pacs")
		says(t, 0, []string{"no delivery to share", "nothing was done"}, "deliveries", verb, root, "--all", "--destination", "share")
	}
	says(t, 0, []string{"of 1 studies to closed: it is given up"}, "deliveries", "drop", root, "--all", "--destination", "closed")
	says(t, 0, []string{"of 2 studies to pacs: it is given up"}, "deliveries", "drop", root, "--all", "--destination", "pacs")
	says(t, 0, []string{"of 3 studies to pacs: it is taken up"}, "deliveries", "retry", root, "--all", "--destination", "pacs")

	// Another address than the service's.
	says(t, exitServer, []string{"those of DICOMweb begin with /dicom-web"}, "studies", "list", strings.TrimSuffix(root, dicomweb.Root))
	other := httptest.NewServer(nil)
	defer other.Close()
	says(t, exitServer, []string{"the URL must be the root of the DICOMweb service"}, "studies", "list", other.URL)
	says(t, exitFailed, []string{"no archive in nowhere", "the http(s) URL of a running service", "!--data"}, "studies", "export", "nowhere", "1.2.1", "--to", t.TempDir())
}

func TestShortened(t *testing.T) {
	for s, want := range map[string]string{"": "", "ten chars!": "ten chars!", "one two three": "one two…", "onetwothree": "onetwothr…", "one: two: three": "one: two…", "ä ö ü ß é è ê": "ä ö ü ß é…"} {
		if got := shortened(s, 10); got != want {
			t.Errorf("%q becomes %q, want %q", s, got, want)
		}
	}
}
