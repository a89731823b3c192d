package dicomweb_test

import (
	"bytes"
	"fmt"
	"io"
	"syscall"
	"testing"
	"time"

	"chatxray/pipeline"
)

// cpu is what this process has used of the processors so far.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkStow uploads instances of 8.4 MB, one a request, durably. CPU is that of client and server together.
func BenchmarkStow(b *testing.B) {
	s := start(b)
	pixels := make([]byte, 8<<20)
	b.SetBytes(int64(len(pixels)))
	n, used := 0, cpu()
	for b.Loop() {
		n++
		body := io.MultiReader(bytes.NewReader([]byte("--b\r\nContent-Type: application/dicom\r\n\r\n")),
			bytes.NewReader(pixelFile(b, 8<<20, n)), bytes.NewReader(pixels), bytes.NewReader([]byte("\r\n--b--\r\n")))
		if r := s.post("/studies", related("b"), body); r.StatusCode != 200 {
			b.Fatalf("%d %s", r.StatusCode, r.body)
		}
	}
	b.ReportMetric(float64((cpu()-used).Microseconds())/1000/float64(n), "cpu-ms/instance")
}

// BenchmarkSearch asks for 100 of 200 studies.
func BenchmarkSearch(b *testing.B) {
	s := start(b)
	var sets []pipeline.Dataset
	for i := range 200 {
		study := fmt.Sprintf("1.2.%d", i)
		sets = append(sets, object(b, study, study+".1", study+".1.1", pipeline.TagPatientID, fmt.Sprint("P", i)))
	}
	s.store(sets...)
	for name, path := range map[string]string{"page": "/studies?limit=100", "patient": "/studies?PatientID=P117", "names": "/studies?PatientName=pro*&limit=100"} {
		b.Run(name, func(b *testing.B) {
			used := cpu()
			for b.Loop() {
				if r := s.get(path); r.StatusCode != 200 {
					b.Fatalf("%d %s", r.StatusCode, r.body)
				}
			}
			b.ReportMetric(float64((cpu()-used).Microseconds())/1000/float64(b.N), "cpu-ms/op")
		})
	}
}

// BenchmarkRetrieve fetches an instance of 8.4 MB.
func BenchmarkRetrieve(b *testing.B) {
	b.SetBytes(8 << 20)
	benchmarkInstance(b, "", 8<<20)
}

// BenchmarkMetadata asks for the header of an instance of 8.4 MB.
func BenchmarkMetadata(b *testing.B) { benchmarkInstance(b, "/metadata", 500) }

// benchmarkInstance fetches something of a stored instance of 8.4 MB, at least so many bytes.
func benchmarkInstance(b *testing.B, what string, least int) {
	s := start(b)
	file := append(pixelFile(b, 8<<20, 0), make([]byte, 8<<20)...)
	if r := s.post("/studies", "application/dicom", bytes.NewReader(file)); r.StatusCode != 200 {
		b.Fatalf("%d %s", r.StatusCode, r.body)
	}
	path := "/studies/1.2/series/1.2.3/instances/1.2.3.4.0" + what
	used := cpu()
	for b.Loop() {
		if r := s.get(path); r.StatusCode != 200 || len(r.body) < least {
			b.Fatal(r.StatusCode, len(r.body))
		}
	}
	b.ReportMetric(float64((cpu()-used).Microseconds())/1000/float64(b.N), "cpu-ms/op")
}
