package chaos

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"math/rand/v2"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"chatxray/phantom"
	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
)

// study is one that the sender has: its images, and in how many sets of images it comes.
type study struct {
	uid     string
	images  []*instance
	waves   [][]*instance // each is sent when the results of the one before it are there
	rush    bool          // the second wave does not wait: it comes while the first may be read
	refused bool          // none of it is read
	direct  bool          // sent by a client of our own, not by Orthanc
}

// sets is how many sets of results there must be at least and at most.
func (s *study) sets() (least, most int) {
	switch {
	case s.refused:
		return 0, 0
	case s.rush:
		return 1, len(s.waves)
	}
	return len(s.waves), len(s.waves)
}

type instance struct {
	study, series, sop string
	lateral            bool
	bytes              []byte
	digest             [32]byte
	orthanc            string // its name there
	taken              atomic.Bool
}

// uid derives a UID from a name (PS3.5 section B.2).
func uid(name ...any) string {
	h := sha256.Sum256(fmt.Append(nil, name...))
	return "2.25." + new(big.Int).SetBytes(h[:16]).String()
}

// drawStudies makes the studies of a seed: small phantoms, most with one frontal radiograph.
func drawStudies(t *testing.T, seed uint64, n int) (all []*study) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 7))
	views := map[phantom.View]pipeline.Dataset{}
	for _, v := range []phantom.View{phantom.PA, phantom.AP, phantom.LL} {
		p, err := phantom.Draw(phantom.Options{Seed: seed, Rows: phantom.LeastSide, Columns: phantom.LeastSide, View: v})
		if err != nil {
			t.Fatal(err)
		}
		views[v] = p.Dataset()
	}
	for i := range n {
		s := &study{uid: uid("study", seed, i), direct: r.IntN(10) < 4}
		priority := [...]string{"", "", "", "STAT", "LOW"}[r.IntN(5)]
		image := func(v phantom.View) []*instance {
			j := len(s.images)
			in := &instance{study: s.uid, series: uid("series", seed, i, j), sop: uid("instance", seed, i, j), lateral: v == phantom.LL}
			ds := slices.Clone(views[v])
			ds.SetText(pipeline.TagStudyInstanceUID, "UI", in.study)
			ds.SetText(pipeline.TagSeriesInstanceUID, "UI", in.series)
			ds.SetText(pipeline.TagSOPInstanceUID, "UI", in.sop)
			if priority != "" {
				ds.SetText(pipeline.TagRequestedProcedurePriority, "SH", priority)
			}
			var b bytes.Buffer
			if err := dicom.Write(&b, ds, "1.2.840.10008.1.2.1"); err != nil {
				t.Fatal(err)
			}
			in.bytes, in.digest = b.Bytes(), sha256.Sum256(b.Bytes())
			s.images = append(s.images, in)
			return []*instance{in}
		}
		switch k := r.IntN(20); {
		case k < 1:
			s.waves, s.refused = [][]*instance{image(phantom.LL)}, true
		case k < 4:
			s.waves = [][]*instance{image(phantom.PA), image(phantom.AP)}
		case k < 6:
			s.waves, s.rush = [][]*instance{image(phantom.PA), image(phantom.AP)}, true
		case k < 8:
			s.waves = [][]*instance{append(image(phantom.AP), image(phantom.LL)...)} // a lateral one beside it changes nothing
		default:
			s.waves = [][]*instance{image(phantom.PA)}
		}
		all = append(all, s)
	}
	return all
}

// sender has the studies in its archive, an Orthanc, and sends each until the service has answered 200, as a PACS does.
type sender struct {
	pacs    string // root of Orthanc
	service string // root of the service
	read    func(uid string) (state string, err error)

	slots          chan struct{}
	sent, repeated atomic.Int64
	giveUp         chan struct{} // closed when the run is over
}

var errAgain = errors.New("not yet")

// send sends all waves of a study; it ends when each instance was answered 200.
func (s *sender) send(st *study) {
	for i, wave := range st.waves {
		if i > 0 && !st.rush {
			s.until(200*time.Millisecond, func() error {
				state, err := s.read(st.uid)
				if err == nil && state != "reported" && state != "delivered" {
					err = errAgain
				}
				return err
			})
		} else if i > 0 {
			time.Sleep(300 * time.Millisecond)
		}
		s.until(500*time.Millisecond, func() error {
			s.slots <- struct{}{}
			defer func() { <-s.slots }()
			var err error
			if s.sent.Add(1); st.direct {
				err = s.post(wave)
			} else {
				err = s.order(wave)
			}
			if err != nil {
				s.repeated.Add(1)
				return err
			}
			for _, in := range wave {
				in.taken.Store(true)
			}
			return nil
		})
	}
	if st.direct { // once more what it has: nothing comes of it
		_ = s.post(st.waves[0])
	}
}

// until repeats f until it has no error, or the run is over.
func (s *sender) until(pause time.Duration, f func() error) {
	for f() != nil {
		select {
		case <-s.giveUp:
			return
		case <-time.After(pause):
		}
	}
}

// post is STOW-RS by ourselves.
func (s *sender) post(wave []*instance) error {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, in := range wave {
		p, _ := w.CreatePart(textproto.MIMEHeader{"Content-Type": {"application/dicom"}})
		_, _ = p.Write(in.bytes)
	}
	_ = w.Close()
	resp, err := impatient.Post(s.service+"/dicom-web/studies", `multipart/related; type="application/dicom"; boundary=`+w.Boundary(), &b)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, answer)
	}
	return err
}

// order has Orthanc send instances, and waits for its job.
func (s *sender) order(wave []*instance) error {
	var ids []string
	for _, in := range wave {
		if in.orthanc == "" {
			var had struct{ ID string }
			if err := call(patient, http.MethodPost, s.pacs+"/instances", in.bytes, &had); err != nil {
				return err
			}
			in.orthanc = had.ID
		}
		ids = append(ids, in.orthanc)
	}
	what, _ := json.Marshal(map[string]any{"Resources": ids, "Synchronous": false})
	var job struct{ ID, State string }
	if err := call(patient, http.MethodPost, s.pacs+"/dicom-web/servers/chatxray/stow", what, &job); err != nil {
		return err
	}
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err := call(patient, http.MethodGet, s.pacs+"/jobs/"+job.ID, nil, &job); err != nil {
			return err
		}
		switch job.State {
		case "Success":
			return nil
		case "Failure":
			return errors.New("Orthanc's job has failed")
		}
	}
	return errors.New("Orthanc's job does not end")
}
