package e2e

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// software asks scripts/clients.sh for the folder of pinned software of others, and skips the test where it cannot be had.
func software(t *testing.T, what string) string {
	t.Helper()
	out, err := fetched(what)
	if err != nil {
		t.Skipf("no %s (scripts/clients.sh %s): %v", what, what, err)
	}
	return out
}

var fetched = func() func(string) (string, error) {
	var mu sync.Mutex
	known := map[string]string{}
	return func(what string) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		if known[what] != "" {
			return known[what], nil
		}
		var errs bytes.Buffer
		cmd := exec.Command("bash", "scripts/clients.sh", what)
		cmd.Dir, cmd.Stderr = root, &errs
		out, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("%w: %s", err, errs.Bytes())
		}
		known[what] = strings.TrimSpace(string(out))
		return known[what], nil
	}
}()

// script is one of e2e/clients with the program that runs it. It is ended after minutes, when something hangs.
func script(t *testing.T, name string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	file := filepath.Join(root, "e2e", "clients", name)
	if filepath.Ext(name) == ".py" {
		return exec.CommandContext(ctx, filepath.Join(software(t, "python"), "bin", "python"), file)
	}
	modules := software(t, "node")
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed (Debian package nodejs)")
	}
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("Chromium is not installed (Debian package chromium)")
	}
	cmd := exec.CommandContext(ctx, node, file)
	cmd.Env = append(os.Environ(), "CLIENTS="+modules, "CHROMIUM="+chromium)
	return cmd
}

// said runs a script and makes a subtest of each of its operations. It fails when the script does something that the table does not have or
// leaves something out. Lines that are no operation are returned.
func said(t *testing.T, cmd *exec.Cmd, table []string) (other []map[string]string) {
	t.Helper()
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("%s: %v\n%s", filepath.Base(cmd.Args[1]), err, errs.Bytes())
	}
	done := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line map[string]string
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatalf("%v in %q", err, lines.Text())
		}
		name, ok := line["operation"]
		if !ok {
			other = append(other, line)
			continue
		}
		if !slices.Contains(table, name) {
			t.Errorf("the table has no operation %q", name)
		}
		done[name] = line["error"]
	}
	for _, name := range table {
		t.Run(name, func(t *testing.T) {
			if wrong, ok := done[name]; !ok || wrong != "" {
				t.Error(cmp.Or(wrong, "it was not done"))
			}
		})
	}
	return other
}

// objects has pydicom write what the clients store and returns the path of their manifest.
func objects(t *testing.T, prefix string, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	cmd := script(t, "objects.py")
	cmd.Args = append(append(cmd.Args, dir, prefix), args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return filepath.Join(dir, "manifest.json")
}

func configured(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "chatxray.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// PyPI's dicomweb-client does all that it can do against a running service. It leaves the port out of Host, whatever the port is.
func TestDicomwebClientPython(t *testing.T) {
	cmd := script(t, "dicomweb.py")
	s := serve(t, t.TempDir(), "--config", configured(t, "dicomweb:\n  delete: true\n"))
	cmd.Args = append(cmd.Args, s.dicomweb(), objects(t, "1.2.826.0.1.3680043.9.1"))
	said(t, cmd, []string{
		"store one",
		"store several, to a study",
		"store several studies, one instance a duplicate",
		"store chunked",
		"store to another study",
		"search studies",
		"search studies by name",
		"search studies by date, modality and tag",
		"search studies by a list of UIDs",
		"search studies with fields and fuzzy matching",
		"search studies by a fuzzy name",
		"search with limit and offset",
		"search series",
		"search instances",
		"search finds nothing",
		"retrieve a study",
		"retrieve a series",
		"retrieve an instance",
		"retrieve an instance as it is stored",
		"retrieve an instance uncompressed",
		"metadata",
		"bulk data",
		"bulk data of pixels",
		"frames",
		"frames of a compressed instance",
		"parts are labelled as what they are",
		"rendered instance",
		"rendered frames",
		"delete an instance",
		"delete a series",
		"delete a study",
	})
}

// npm's dicomweb-client does all that it can do (it has no delete), in a browser, from a page of another origin.
func TestDicomwebClientBrowser(t *testing.T) {
	cmd := script(t, "dicomweb.mjs")
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<!doctype html><title>a page of another origin</title>")
	}))
	t.Cleanup(page.Close)
	s := serve(t, t.TempDir(), "--config", configured(t, "dicomweb:\n  cors:\n    origins: ["+page.URL+"]\n"))
	cmd.Args = append(cmd.Args, s.dicomweb(), objects(t, "1.2.826.0.1.3680043.9.2"), page.URL)
	said(t, cmd, []string{
		"store one",
		"store several, to a study",
		"store several studies, one instance a duplicate",
		"store to another study",
		"search studies",
		"search studies by name",
		"search studies by date, modality and tag",
		"search studies by a list of UIDs",
		"search with limit and offset",
		"search series",
		"search instances",
		"search finds nothing",
		"retrieve a study",
		"retrieve a series",
		"retrieve an instance",
		"retrieve a compressed instance",
		"metadata",
		"bulk data",
		"bulk data of pixels",
		"frames",
		"frames of a compressed instance",
		"rendered instance",
		"rendered frames",
		"thumbnail",
	})
}
