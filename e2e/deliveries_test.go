package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const hookSecret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="

// hooks takes events, and verifies each with the library of the Standard Webhooks project.
type hooks struct {
	t    *testing.T
	away atomic.Bool

	mu  sync.Mutex
	ids map[string]map[string]int // by study: how often each id came
}

func (h *hooks) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.away.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return // killed in the middle
	}
	verifier, err := standardwebhooks.NewWebhook(hookSecret)
	if err == nil {
		err = verifier.Verify(b, r.Header)
	}
	var e struct {
		Type string
		Data struct {
			Study     string `json:"study_instance_uid"`
			Documents []struct {
				UID string `json:"sop_instance_uid"`
			}
		}
	}
	if err == nil {
		err = json.Unmarshal(b, &e)
	}
	if err != nil || e.Type != "study.reported" || len(e.Data.Documents) != 2 || strings.Contains(string(b), "Phantom") {
		h.t.Errorf("an event that is not as it should be (%v): %s", err, b)
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ids[e.Data.Study] == nil {
		h.ids[e.Data.Study] = map[string]int{}
	}
	h.ids[e.Data.Study][r.Header.Get("webhook-id")]++
}

// Thirty studies, three destinations that are away at first, and a service that is killed again and again while it delivers: each document is in Orthanc and in
// the folder once, and each study's event came, always with the same id.
func TestDeliveriesAreTakenUp(t *testing.T) {
	built(t)
	const studies = 30
	hook := &hooks{t: t, ids: map[string]map[string]int{}}
	hook.away.Store(true)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	receiver := &http.Server{Handler: hook}
	go func() { _ = receiver.Serve(l) }()
	t.Cleanup(func() { receiver.Close() })
	pacsPort := freePort(t)
	folder := filepath.Join(t.TempDir(), "share")
	config, data := filepath.Join(t.TempDir(), "chatxray.yaml"), t.TempDir()
	page := fmt.Sprintf(`line: {quiet: 200ms}
destinations:
  - {name: pacs, url: "http://127.0.0.1:%d/dicom-web", rate: 4}
  - {name: share, kind: folder, path: %q, rate: 4}
  - {name: ris, kind: webhook, url: "http://%s/hook", secret: %s, rate: 4}
`, pacsPort, folder, l.Addr(), hookSecret)
	if err := os.WriteFile(config, []byte(page), 0o644); err != nil {
		t.Fatal(err)
	}
	var files []string
	for i := range studies {
		file, _ := phantom(t, "--seed", fmt.Sprint(700+i), "--rows", "256", "--columns", "215")
		files = append(files, file)
	}
	s := serve(t, data, "--config", config, "--reader", "stub")
	chatxray(t, 0, append([]string{"send", s.dicomweb()}, files...)...)
	listed := func(state string) int {
		var page struct{ Studies []struct{} }
		getJSON(t, s.dicomweb()+"/readings?state="+state, &page)
		return len(page.Studies)
	}
	eventually(t, 15*time.Minute, "all studies to be reported", func() error {
		if n := listed("reported"); n != studies {
			return fmt.Errorf("%d of %d are", n, studies)
		}
		return nil
	})
	eventually(t, 2*time.Minute, "all destinations to be known as away", func() error {
		for _, to := range []string{"pacs", "share", "ris"} {
			if s.metric(`chatxray_destination_away{destination="`+to+`"}`) != "1" {
				return fmt.Errorf("%s is not", to)
			}
		}
		return nil
	})
	out, said := chatxray(t, 0, "deliveries", "list", "--json", s.dicomweb())
	if n := strings.Count(out, "study_instance_uid"); n != 3*studies || strings.Count(said, "has been away since") != 3 {
		t.Errorf("%d deliveries are listed; %s", n, said)
	}
	orthanc(t, pacsPort, s.root) // it forwards nothing: nothing but our documents comes in
	if err := os.Mkdir(folder, 0o750); err != nil {
		t.Fatal(err)
	}
	hook.away.Store(false)
	inFolder := func() (names map[string]string) {
		names = map[string]string{}
		err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				names[d.Name()] = path
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	for _, enough := range []int{4, 16, 28} { // of sixty
		eventually(t, 2*time.Minute, "deliveries under way", func() error {
			if n := len(inFolder()); n < enough {
				return fmt.Errorf("%d files", n)
			}
			return nil
		})
		s.stop(syscall.SIGKILL)
		s = serve(t, data, "--config", config, "--reader", "stub")
	}
	eventually(t, 5*time.Minute, "all studies to be delivered", func() error {
		if n := listed("delivered"); n != studies {
			return fmt.Errorf("%d of %d are", n, studies)
		}
		return nil
	})
	if out, _ := chatxray(t, 0, "deliveries", "list", "--json", s.dicomweb()); out != "" {
		t.Errorf("something is still to be delivered:\n%s", out)
	}
	var found []map[string]struct{ Value []any }
	getJSON(t, fmt.Sprintf("http://127.0.0.1:%d/dicom-web/instances", pacsPort), &found)
	files2 := inFolder()
	if len(found) != 2*studies || len(files2) != 2*studies {
		t.Errorf("%d documents in Orthanc, %d in the folder, want %d", len(found), len(files2), 2*studies)
	}
	for _, in := range found {
		if uid := fmt.Sprint(in["00080018"].Value...); files2[uid+".dcm"] == "" {
			t.Errorf("%s is in Orthanc and not in the folder", uid)
		}
	}
	hook.mu.Lock()
	defer hook.mu.Unlock()
	repeats := 0
	for study, ids := range hook.ids {
		if len(ids) != 1 {
			t.Errorf("the events of study %s have %d ids", study, len(ids))
		}
		for _, n := range ids {
			repeats += n - 1
		}
	}
	if len(hook.ids) != studies {
		t.Errorf("events of %d studies, want %d", len(hook.ids), studies)
	}
	t.Logf("%d events came twice", repeats)
}
