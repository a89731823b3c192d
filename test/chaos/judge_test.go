package chaos

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// verdict is what a run has come to.
type verdict struct {
	studies, images, sets  int
	lost, duplicate, stuck int
	account                    // of all studies
	superseded             int // readings whose images had become more before they were reported
	leasesAtMost           int // leases that faults may have cost
	redelivered            int // documents that the receiver got again
	parted, partedAtMost   int // of them: those that were answered and whose worker a fault kept from noting it; how many there may be
}

func (v verdict) String() string {
	return fmt.Sprintf("%d studies, %d images, %d result sets: %d lost, %d duplicate, %d stuck; model runs %d of at most %d (%d sets + %d whose lease was lost, of at most %d + %d remembered and forgotten + %d superseded); "+
		"%d documents delivered again, %d of them though answered and not noted for a fault, of at most %d", v.studies, v.images, v.sets, v.lost, v.duplicate, v.stuck,
		v.runs, v.sets+v.leases+v.forgotten+v.superseded, v.sets, v.leases, v.leasesAtMost, v.forgotten, v.superseded, v.redelivered, v.parted, v.partedAtMost)
}

// settling is how long a run may take after the last image was taken, until nothing is left to do. It is no measure of speed: pauses between attempts grow
// with what has failed, to five minutes and a fifth of that.
const settling = 7 * time.Minute

type page struct {
	Studies []struct {
		StudyInstanceUID string `json:"study_instance_uid"`
		State, Reason    string
	}
	Jobs []json.RawMessage
	Next string
}

// all reads a list of the service, page by page.
func (r *run) all(c *http.Client, path string, each func(page)) error {
	for after := ""; ; {
		var p page
		if after != "" {
			after = "&after=" + after
		}
		if err := call(c, "GET", r.service+"/dicom-web/"+path+"?limit=1000"+after, nil, &p); err != nil {
			return err
		}
		each(p)
		if after = p.Next; after == "" {
			return nil
		}
	}
}

// settle waits until nothing is left to do, and returns what is.
func (r *run) settle() (left []string) {
	for end := time.Now().Add(settling); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		left = nil
		if err := r.all(patient, "jobs", func(p page) {
			for _, j := range p.Jobs {
				left = append(left, string(j))
			}
		}); err != nil {
			left = append(left, err.Error())
		}
		if err := r.all(patient, "readings", func(p page) {
			for _, s := range p.Studies {
				if s.State != "delivered" && s.State != "refused" {
					left = append(left, s.StudyInstanceUID+" is "+s.State+" "+s.Reason)
				}
			}
		}); err != nil {
			left = append(left, err.Error())
		}
		if len(left) == 0 {
			return nil
		}
	}
	return left
}

// judge compares what there is with what there must be. left is what was still to be done.
func (r *run) judge(left []string) (v verdict) {
	v.studies, v.stuck = len(r.studies), len(left)
	r.forget()
	for _, l := range left[:min(len(left), 20)] {
		r.t.Errorf("stuck: %s", l)
	}
	r.accounts = r.readLogs()
	for _, st := range r.studies {
		r.compare(st, &v)
	}
	v.leasesAtMost = r.lost
	if v.leases > v.leasesAtMost {
		v.duplicate++
		r.t.Errorf("%d runs of the model ended without a reading, and the faults may have cost %d leases", v.leases, v.leasesAtMost)
	}
	for _, p := range r.partings {
		v.partedAtMost += p.most
	}
	if v.parted > v.partedAtMost {
		v.duplicate++
		r.t.Errorf("%d documents were delivered again that were answered, and faults may have kept %d from being noted", v.parted, v.partedAtMost)
	}
	for _, sop := range r.receiver.other {
		v.duplicate++
		r.t.Errorf("document %s was delivered with other content than before", sop)
	}
	others := []*process{r.redis}
	if r.store != nil {
		others = append(others, r.store.gateway)
	}
	for _, p := range append(others, r.processes()...) {
		for _, e := range p.ended() {
			r.t.Logf("%s ended by itself: %s", p.name, e)
		}
	}
	return v
}

// attributes of a data set in DICOM JSON.
type attributes map[string]struct {
	VR    string `json:"vr"`
	Value []json.RawMessage
}

func (a attributes) text(tag string) (s string) {
	if v := a[tag].Value; len(v) > 0 {
		_ = json.Unmarshal(v[0], &s)
	}
	return s
}

const (
	sopInstance = "00080018"
	sopClass    = "00080016"
	modality    = "00080060"
	predecessor = "0040A360"
)

var calls = regexp.MustCompile(`Call ([A-Z2-7]{26})\.`)

// compare checks one study: its images, its documents here and at the receiver, its timeline.
func (r *run) compare(st *study, v *verdict) {
	fail := func(n *int, format string, args ...any) {
		*n++
		r.t.Errorf("study %s (%d waves, rush %v, refused %v): %s\n%s", st.uid, len(st.waves), st.rush, st.refused, fmt.Sprintf(format, args...), r.timeline(st.uid))
	}
	here := r.retrieve(st.uid)
	for _, in := range st.images {
		if !in.taken.Load() {
			continue
		}
		v.images++
		if b, ok := here[in.sop]; !ok {
			fail(&v.lost, "image %s was answered 200 and is not in the archive", in.sop)
		} else if sha256.Sum256(b) != in.digest {
			fail(&v.lost, "image %s is not what was sent", in.sop)
		}
		delete(here, in.sop)
	}
	r.compareBucket(st, here, v, fail)
	// What is left are documents. QIDO-RS must name the same.
	var found, whole []attributes
	if err := errors.Join(call(patient, "GET", r.service+"/dicom-web/studies/"+st.uid+"/instances?Modality=SR&includefield=00080016", nil, &found),
		call(patient, "GET", r.service+"/dicom-web/studies/"+st.uid+"/metadata", nil, &whole)); err != nil {
		fail(&v.lost, "%v", err)
		return
	}
	whole = slices.DeleteFunc(whole, func(a attributes) bool { return a.text(modality) != "SR" })
	if names(found) != names(whole) || names(found) != join(maps.Keys(here)) {
		fail(&v.lost, "QIDO-RS finds the documents\n%s\nWADO-RS has\n%s\nand of these metadata of\n%s", names(found), join(maps.Keys(here)), names(whole))
	}
	byClass, byCall, replaced := map[string]int{}, map[string]int{}, 0
	for _, a := range whole {
		byClass[a.text(sopClass)]++
		if len(a[predecessor].Value) > 0 {
			replaced++
		}
		raw, _ := json.Marshal(a)
		if m := calls.FindSubmatch(raw); m != nil { // the sentences are in one of the two documents of a reading
			byCall[string(m[1])]++
		}
	}
	least, most := st.sets()
	sets := 0
	for _, n := range byClass {
		sets = max(sets, n)
	}
	v.sets += sets
	switch {
	case sets < least:
		fail(&v.lost, "%d sets of results, want at least %d", sets, least)
	case sets > most:
		fail(&v.duplicate, "%d sets of results, want at most %d", sets, most)
	}
	if sets > 0 && (len(byClass) != 2 || len(whole) != 2*sets) {
		fail(&v.lost, "%d documents of %d kinds in %d sets of results", len(whole), len(byClass), sets)
	}
	if !r.settings.bundle && len(byCall) != sets {
		fail(&v.duplicate, "the documents are of %d readings, want %d: %v", len(byCall), sets, byCall)
	}
	if sets > 0 && replaced != 2*(sets-1) {
		fail(&v.lost, "%d documents name an earlier one that they replace, want %d", replaced, 2*(sets-1))
	}
	r.compareLatest(st, v, byCall, fail)
	r.compareReceiver(st, here, v, fail)
	r.compareDeliveries(st, v, fail)
	r.compareRuns(st, sets, v, fail)
	r.compareSteps(st, sets, v, fail)
}

// compareLatest checks that the last reading knows every image, and that the documents are its own.
func (r *run) compareLatest(st *study, v *verdict, byCall map[string]int, fail func(*int, string, ...any)) {
	type sop struct {
		UID string `json:"sop_instance_uid"`
	}
	var s struct {
		State  string
		Record struct {
			Reading struct {
				Inputs    []sop
				Sentences []struct{ Text string }
			}
			Refused []sop
		}
	}
	if err := call(patient, "GET", r.service+"/dicom-web/studies/"+st.uid+"/reading", nil, &s); err != nil {
		fail(&v.lost, "%v", err)
		return
	}
	for _, x := range s.Record.Reading.Sentences {
		if m := calls.FindStringSubmatch(x.Text); m != nil && byCall[m[1]] == 0 {
			fail(&v.duplicate, "its record is of the call %s, and its documents of %v", m[1], byCall)
		}
	}
	want := "delivered"
	if st.refused {
		want = "refused"
	}
	if s.State != want {
		fail(&v.stuck, "it is %s, want %s", s.State, want)
	}
	var known []string
	for _, x := range append(s.Record.Reading.Inputs, s.Record.Refused...) {
		known = append(known, x.UID)
	}
	// A lateral one that was kept later than the frontal one beside it makes no new reading.
	later := slices.ContainsFunc(r.steps(st.uid), func(s step) bool { return s.Reason == "the same images as before" })
	for _, in := range st.images {
		if in.taken.Load() && !slices.Contains(known, in.sop) && !(in.lateral && later) {
			fail(&v.lost, "image %s is neither read nor refused by the last reading", in.sop)
		}
	}
}

// compareReceiver checks that Orthanc has exactly our documents, bit for bit, and that nothing else was ever stored there.
func (r *run) compareReceiver(st *study, ours map[string][]byte, v *verdict, fail func(*int, string, ...any)) {
	stored := r.receiver.of(st.uid)
	for sop := range stored {
		if _, ok := ours[sop]; !ok {
			fail(&v.duplicate, "the receiver was given document %s, which the archive does not have", sop)
		}
	}
	var ids []string
	if err := call(patient, "POST", r.pacs+"/tools/find", []byte(`{"Level":"Instance","Query":{"StudyInstanceUID":"`+st.uid+`","Modality":"SR"}}`), &ids); err != nil {
		fail(&v.lost, "%v", err)
	}
	theirs := map[string]bool{}
	for _, id := range ids {
		b, err := fetch(r.pacs + "/instances/" + id + "/file")
		if err != nil {
			fail(&v.lost, "%v", err)
			continue
		}
		sop := uidIn(b, 0x0002, 0x0003)
		theirs[sop] = true
		if !bytes.Equal(b, ours[sop]) {
			fail(&v.lost, "document %s is another one in Orthanc than in the archive", sop)
		}
	}
	if join(maps.Keys(theirs)) != join(maps.Keys(ours)) {
		fail(&v.lost, "Orthanc has the documents\n%s\nand the archive\n%s", join(maps.Keys(theirs)), join(maps.Keys(ours)))
	}
}

// retrieve gets all instances of a study as they are stored, by SOP Instance UID.
func (r *run) retrieve(uid string) map[string][]byte {
	out := map[string][]byte{}
	q, _ := http.NewRequest(http.MethodGet, r.service+"/dicom-web/studies/"+uid, nil)
	q.Header.Set("Accept", `multipart/related; type="application/dicom"; transfer-syntax=*`)
	resp, err := patient.Do(q)
	if err != nil {
		r.t.Error(err)
		return out
	}
	defer resp.Body.Close()
	_, params, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode != http.StatusOK {
		return out // nothing of it is there
	}
	for parts := multipart.NewReader(resp.Body, params["boundary"]); ; {
		p, err := parts.NextRawPart()
		if errors.Is(err, io.EOF) {
			return out
		}
		var b []byte
		if err == nil {
			b, err = io.ReadAll(p)
		}
		if err != nil {
			r.t.Errorf("study %s cannot be retrieved: %v", uid, err)
			return out
		}
		out[uidIn(b, 0x0002, 0x0003)] = b
	}
}

func fetch(url string) ([]byte, error) {
	resp, err := patient.Get(url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return b, err
}

func names(all []attributes) string {
	var s []string
	for _, a := range all {
		s = append(s, a.text(sopInstance))
	}
	slices.Sort(s)
	return strings.Join(s, "\n")
}

func join(all func(func(string) bool)) string { return strings.Join(slices.Sorted(all), "\n") }
