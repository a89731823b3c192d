// Command overhead measures what the service adds to the model: from study complete to SR stored, minus the time inside ONNX
// Runtime. It starts bin/chatxray serve with everything embedded, sends phantoms and asks for each study's record.
//
//	go run ./bench/overhead -n 20
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	bin := flag.String("bin", "bin/chatxray", "the binary")
	n := flag.Int("n", 20, "studies")
	rows := flag.Int("rows", 2500, "rows of the phantoms; columns are in proportion")
	flag.Parse()
	if err := measure(*bin, *n, *rows); err != nil {
		fmt.Fprintln(os.Stderr, "overhead:", err)
		os.Exit(1)
	}
}

type status struct {
	State  string
	Record struct {
		Completed, Reported time.Time
		Reading             struct {
			RunSeconds float64 `json:"run_seconds"`
		}
	}
}

func measure(bin string, n, rows int) error {
	dir, err := os.MkdirTemp("", "overhead")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cfg, port := filepath.Join(dir, "c.yaml"), filepath.Join(dir, "port")
	if err := os.WriteFile(cfg, []byte("line:\n  quiet: 200ms\n"), 0o644); err != nil {
		return err
	}
	serve := exec.Command(bin, "--log-level", "error", "serve", "--config", cfg, "--data", filepath.Join(dir, "data"), "--listen", "127.0.0.1:0", "--port-file", port)
	serve.Stderr = os.Stderr
	if err := serve.Start(); err != nil {
		return err
	}
	defer func() { _ = serve.Process.Signal(syscall.SIGTERM); _ = serve.Wait() }()
	var url string
	for end := time.Now().Add(2 * time.Minute); url == ""; time.Sleep(100 * time.Millisecond) {
		if b, err := os.ReadFile(port); err == nil && len(b) > 0 {
			url = "http://127.0.0.1:" + strings.TrimSpace(string(b)) + "/dicom-web"
		}
		if time.Now().After(end) {
			return fmt.Errorf("the service did not start")
		}
	}
	var over, total, inside []float64
	out := bufio.NewWriter(os.Stdout)
	for i := range n {
		file := filepath.Join(dir, "p.dcm")
		uid, err := exec.Command(bin, "phantom", "--seed", fmt.Sprint(i+1), "--rows", fmt.Sprint(rows), "--columns", fmt.Sprint(rows*86/105), "--print-uid", "--out", file).Output()
		if err != nil {
			return fmt.Errorf("phantom: %w", err)
		}
		if err := exec.Command(bin, "send", url, file).Run(); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		st, err := wait(url, strings.TrimSpace(string(uid)))
		if err != nil {
			return err
		}
		all := st.Record.Reported.Sub(st.Record.Completed).Seconds()
		run := st.Record.Reading.RunSeconds
		over, total, inside = append(over, all-run), append(total, all), append(inside, run)
	}
	for _, r := range []struct {
		name string
		v    []float64
	}{{"complete to SR stored", total}, {"inside ONNX Runtime", inside}, {"overhead", over}} {
		slices.Sort(r.v)
		fmt.Fprintf(out, "%-24s min %7.1f ms  median %7.1f ms  max %7.1f ms\n", r.name, 1e3*r.v[0], 1e3*r.v[len(r.v)/2], 1e3*r.v[len(r.v)-1])
	}
	return out.Flush()
}

func wait(url, uid string) (st status, err error) {
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		resp, err := http.Get(url + "/studies/" + uid + "/reading")
		if err != nil {
			return st, err
		}
		st = status{}
		err = json.NewDecoder(resp.Body).Decode(&st)
		resp.Body.Close()
		if err != nil {
			return st, err
		}
		switch st.State {
		case "reported":
			return st, nil
		case "refused", "failed":
			return st, fmt.Errorf("study %s: %s", uid, st.State)
		}
	}
	return st, fmt.Errorf("study %s is not reported after 5 minutes", uid)
}
