package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestDeleteWhileItIsRead deletes a study under the model's hands: nothing of it comes back, not even after a crash, and it can be stored
// and read again.
func TestDeleteWhileItIsRead(t *testing.T) {
	built(t)
	config, data := filepath.Join(t.TempDir(), "chatxray.yaml"), t.TempDir()
	if err := os.WriteFile(config, []byte("dicomweb: {delete: true}\nline: {quiet: 0s}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := serve(t, data, "--config", config)
	file, study := phantom(t)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(method, path string, body []byte) int {
		t.Helper()
		r, err := http.NewRequest(method, s.dicomweb()+path, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if body != nil {
			r.Header.Set("Content-Type", "application/dicom")
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	gone := func(when string) {
		t.Helper()
		eventually(t, 5*time.Second, when+", the reading to be gone", func() error { // the line forgets it when its turn comes
			if status := ask(http.MethodGet, "/studies/"+study+"/reading", nil); status != http.StatusNotFound {
				return fmt.Errorf("it is answered %d", status)
			}
			return nil
		})
		for _, tree := range []string{"instances", "documents", "records"} {
			if _, err := os.Stat(filepath.Join(data, tree, study)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: %s of the study are there: %v", when, tree, err)
			}
		}
	}
	until := func(states ...string) {
		t.Helper()
		eventually(t, 2*time.Minute, fmt.Sprint("the study to be ", states), func() error {
			var st struct{ State string }
			getJSON(t, s.dicomweb()+"/studies/"+study+"/reading", &st)
			for _, want := range states {
				if st.State == want {
					return nil
				}
			}
			return errors.New(st.State)
		})
	}
	store := func() {
		t.Helper()
		if status := ask(http.MethodPost, "/studies", b); status != http.StatusOK {
			t.Fatal("store:", status)
		}
	}
	for _, state := range []string{"reading", "reported"} {
		store()
		until(state, "reported")
		if status := ask(http.MethodDelete, "/studies/"+study, nil); status != http.StatusNoContent {
			t.Fatalf("DELETE while %s: %d", state, status)
		}
		gone("after DELETE while " + state)
		time.Sleep(3 * time.Second)
		gone("a while after DELETE while " + state)
	}
	store()
	if status := ask(http.MethodDelete, "/studies/"+study, nil); status != http.StatusNoContent {
		t.Fatal(status)
	}
	s.stop(syscall.SIGKILL)
	s = serve(t, data, "--config", config)
	gone("after a crash")
	store()
	until("reported")
}

// TestDeletedImageWithdrawsItsReport deletes the only image of a study that has been reported: the reports stay, and are told to be withdrawn,
// until the image comes again.
func TestDeletedImageWithdrawsItsReport(t *testing.T) {
	built(t)
	s := serve(t, t.TempDir(), "--config", configured(t, "dicomweb: {delete: true}\nline: {quiet: 0s}\n"))
	file, study := phantom(t)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	url := keep(t, s, b)
	until := func(state string, withdrawn int) {
		t.Helper()
		eventually(t, 2*time.Minute, "the study to be "+state, func() error {
			var st struct {
				State     string
				Withdrawn []struct {
					SOP    string `json:"sop_instance_uid"`
					Series string `json:"series_instance_uid"`
				}
			}
			getJSON(t, s.dicomweb()+"/studies/"+study+"/reading", &st)
			if st.State != state || len(st.Withdrawn) != withdrawn {
				return fmt.Errorf("it is %+v", st)
			}
			for _, d := range st.Withdrawn { // still there to be looked at
				if status, err := fetch(s.dicomweb() + "/studies/" + study + "/series/" + d.Series + "/instances/" + d.SOP); err != nil || status != http.StatusOK {
					t.Errorf("document %s: %d %v", d.SOP, status, err)
				}
			}
			return nil
		})
	}
	until("reported", 0)
	r, err := http.NewRequest(http.MethodDelete, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := http.DefaultClient.Do(r); err != nil || resp.StatusCode != http.StatusNoContent {
		t.Fatal(resp, err)
	}
	until("withdrawn", 2)
	var count struct{ Count int }
	if getJSON(t, s.dicomweb()+"/studies/"+study+"/instances/count", &count); count.Count != 2 {
		t.Errorf("%d instances are left, want the two reports", count.Count)
	}
	keep(t, s, b)
	until("reported", 0)
}

func fetch(url string) (status int, err error) {
	resp, err := http.Get(url)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}
