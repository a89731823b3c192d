package dicomweb_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"chatxray/pipeline"
)

// BenchmarkSearchBesideOrthanc asks both for 100 of the same 200 studies, by turns. The processor time of ours has the client's in it.
func BenchmarkSearchBesideOrthanc(b *testing.B) {
	s := start(b)
	o := startOrthanc(b, s.root)
	for i := range 200 {
		study := fmt.Sprintf("1.2.%d", i)
		d := object(b, study, study+".1", study+".1.1", pipeline.TagPatientID, fmt.Sprint("P", i), pipeline.TagStudyDescription, "Chest radiograph",
			pipeline.TagStudyTime, "101112", pipeline.TagAccessionNumber, fmt.Sprint("A", i))
		s.store(d)
		o.call("POST", "/instances", file(b, d))
	}
	for name, path := range map[string]string{"page": "/studies?limit=100", "patient": "/studies?PatientID=P117"} {
		b.Run(name, func(b *testing.B) {
			ask := func(root string) time.Duration {
				r, err := http.NewRequest(http.MethodGet, root+path, nil)
				if err != nil {
					b.Fatal(err)
				}
				r.Header.Set("Accept", "application/dicom+json")
				begun := time.Now()
				resp, err := http.DefaultClient.Do(r)
				if err != nil {
					b.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if n := bytes.Count(body, []byte("0020000D")); err != nil || n != 100 && n != 1 {
					b.Fatalf("%s has %d studies, %v", root, n, err)
				}
				return time.Since(begun)
			}
			var ours, theirs []time.Duration
			var usedOurs, usedTheirs time.Duration
			for b.Loop() {
				before, theirBefore := cpu(), o.cpu()
				ours = append(ours, ask(s.root))
				usedOurs += cpu() - before
				theirs = append(theirs, ask(o.root+"/dicom-web"))
				usedTheirs += o.cpu() - theirBefore
			}
			p95 := func(d []time.Duration) float64 {
				slices.Sort(d)
				return float64(d[len(d)*95/100].Microseconds()) / 1000
			}
			n := float64(len(ours))
			b.ReportMetric(p95(ours), "p95-ms")
			b.ReportMetric(p95(theirs), "Orthanc-p95-ms")
			b.ReportMetric(float64(usedOurs.Microseconds())/1000/n, "cpu-ms")
			b.ReportMetric(float64(usedTheirs.Microseconds())/1000/n, "Orthanc-cpu-ms")
		})
	}
}

// cpu is what Orthanc has used of the processors, to a hundredth of a second.
func (o orthanc) cpu() time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", o.pid))
	if err != nil {
		o.t.Fatal(err)
	}
	_, fields, _ := strings.Cut(string(stat), ") ")
	var user, system int
	if f := strings.Fields(fields); len(f) > 12 {
		_, _ = fmt.Sscan(f[11], &user)
		_, _ = fmt.Sscan(f[12], &system)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}
