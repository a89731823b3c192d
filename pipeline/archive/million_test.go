package archive_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"chatxray/dicomweb"
	"chatxray/pipeline"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/dicom"
)

// BenchmarkMillion measures searches over HTTP in an index of QIDO_STUDIES synthetic studies (20,000 where it is not set), each search
// with other values every time. QIDO_DIR keeps the index for another run. bench/qido/run.sh runs it with a million.
func BenchmarkMillion(b *testing.B) {
	n, err := strconv.Atoi(os.Getenv("QIDO_STUDIES"))
	if err != nil {
		n = 20_000
	}
	dir := os.Getenv("QIDO_DIR")
	if dir == "" {
		dir = b.TempDir()
	}
	a, err := archive.Open(dir, dicom.OpenFile, archive.Options{Reserve: -1})
	if err != nil {
		b.Fatal(err)
	}
	if have, err := a.Count(context.Background(), pipeline.Query{}); err != nil || have != n {
		if have > 0 || err != nil {
			b.Fatalf("the index in QIDO_DIR has %d studies, not %d: %v", have, n, err)
		}
		fill(b, a, dir, n)
	}
	if err := a.Close(); err != nil {
		b.Fatal(err)
	}
	start, before := time.Now(), rss()
	if a, err = archive.Open(dir, dicom.OpenFile, archive.Options{Reserve: -1}); err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	if _, err := a.Count(context.Background(), pipeline.Query{}); err != nil {
		b.Fatal(err)
	}
	runtime.GC()
	b.Logf("%d studies: open and first search %.2f s, memory of the process %d MB, before %d MB", n, time.Since(start).Seconds(), rss(), before)
	benchSearches(b, a, n)
}

// BenchmarkIndexes does the same over every kind of index, and measures commits of studies of one instance from eight senders.
func BenchmarkIndexes(b *testing.B) {
	n, err := strconv.Atoi(os.Getenv("QIDO_STUDIES"))
	if err != nil {
		n = 2_000
	}
	for _, kind := range []string{"sqlite", "postgres"} {
		b.Run(kind, func(b *testing.B) {
			dir := b.TempDir()
			a := open(b, dir, archive.Options{Reserve: -1})
			if onPostgres(b) && n >= 20_000 { // entering them all one by one takes minutes
				fill(b, a, dir, n/20)
				multiply(b, schemaOf(dir), n/20)
			} else {
				fill(b, a, dir, n)
			}
			if onPostgres(b) {
				if err := server(b).Query("archives", "VACUUM ANALYZE"); err != nil { // as autovacuum does a minute later
					b.Fatal(err)
				}
			}
			b.Run("commit", func(b *testing.B) { benchCommits(b, a) })
			benchSearches(b, a, n)
		})
	}
}

// multiply makes twenty studies of each of n, of other patients and with other numbers.
func multiply(b *testing.B, schema string, n int) {
	study := `s.uid || '.' || c.k, received, name_alphabetic, name_ideographic, name_phonetic, 'MRN' || lpad((substr(patient_id, 4)::int + k * ` + strconv.Itoa(n*2/5) + `)::text, 8, '0'), birth_date, sex,
		study_date, study_time, 'ACC' || lpad((substr(accession, 4)::int + k * ` + strconv.Itoa(n) + `)::text, 9, '0'), study_id, referring, description, attrs`
	err := server(b).Query("archives", `SET search_path = `+schema+`;
		CREATE TEMP TABLE copies AS SELECT s.id AS old, k, nextval(pg_get_serial_sequence('study', 'id')) AS id FROM generate_series(1, 19) k, study s ORDER BY k, s.id;
		INSERT INTO study (id, uid, received, name_alphabetic, name_ideographic, name_phonetic, patient_id, birth_date, sex, study_date, study_time, accession, study_id, referring, description, attrs)
			SELECT c.id, `+study+` FROM copies c JOIN study s ON s.id = c.old;
		INSERT INTO name_word SELECT field, word, c.id FROM copies c JOIN name_word w ON w.study = c.old;
		INSERT INTO series (study, uid, modality, number, description, step_date, step_time, attrs)
			SELECT c.id, uid || '.' || k, modality, number, description, step_date, step_time, attrs FROM copies c JOIN series e ON e.study = c.old;
		INSERT INTO instance (series, uid, class, syntax, number, digest, size, own, received, attrs)
			SELECT n.id, i.uid || '.' || k, class, syntax, i.number, digest, size, own, i.received, i.attrs
			FROM copies c JOIN series e ON e.study = c.old JOIN instance i ON i.series = e.id JOIN series n ON n.study = c.id AND n.uid = e.uid || '.' || k`)
	if err != nil {
		b.Fatal(err)
	}
}

func benchCommits(b *testing.B, a *archive.Archive) {
	var next atomic.Int64
	first := time.Now().UnixNano()
	var work sync.WaitGroup
	b.ResetTimer()
	for range 8 {
		work.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				study := fmt.Sprintf("1.2.%d.%d", first, i)
				if o := store(b, a, object(b, study, study+".1", study+".1.1"))[0]; o.Err != nil {
					b.Error(o.Err)
				}
			}
		})
	}
	work.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "studies/s")
}

func benchSearches(b *testing.B, a *archive.Archive, n int) {
	web := httptest.NewServer(dicomweb.New(dicomweb.Default(), a, dicomweb.Deps{Lookup: dicom.Lookup}))
	defer web.Close()
	for _, q := range queries(n) {
		b.Run(q.name, func(b *testing.B) {
			var took []time.Duration
			bytes := 0
			used := cpu()
			for b.Loop() {
				path := q.path(len(took))
				start := time.Now()
				bytes += fetch(b, web.URL+dicomweb.Root+path)
				took = append(took, time.Since(start))
			}
			slices.Sort(took)
			ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
			b.ReportMetric(ms(took[len(took)/2]), "p50-ms")
			b.ReportMetric(ms(took[len(took)*95/100]), "p95-ms")
			b.ReportMetric(ms(cpu()-used)/float64(len(took)), "cpu-ms/op")
			b.ReportMetric(float64(bytes)/float64(len(took))/1000, "kB/op")
		})
	}
}

func fetch(b *testing.B, url string) int {
	r, err := http.Get(url)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		b.Fatalf("%s: %d %s %v", url, r.StatusCode, body, err)
	}
	return len(body)
}

var (
	families = []string{"Smith", "Schneider", "Nguyen", "Garcia", "Kowalski", "Müller", "Sato", "Silva", "Hansen", "Rossi", "Martin", "Novak", "Petrov",
		"Andersson", "Dubois", "Sanchez", "Suzuki", "Sharma", "Kim", "Ivanova", "Okafor", "Brown", "Jones", "Weber", "Becker", "Lopez", "Stewart", "Singh"}
	givens = []string{"Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Hiro", "Ines", "Jan", "Karin", "Luis", "Maria", "Noah", "Olga", "Paul"}
)

func family(i int) string {
	return families[i*i%len(families)] + []string{"", "son", "mann", "ova"}[i/7%4]
}

// day is a date within fifteen years.
func day(i int) string {
	return time.Date(2010, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, i%(15*365)).Format("20060102")
}

func fill(b *testing.B, a *archive.Archive, dir string, n int) {
	start := time.Now()
	r := rand.New(rand.NewPCG(1, 2))
	var batch []*pipeline.Instance
	flush := func() {
		if err := a.Enter(context.Background(), batch); err != nil {
			b.Fatal(err)
		}
		batch = batch[:0]
	}
	for i := range n {
		var h pipeline.Dataset
		study := fmt.Sprintf("1.2.826.0.1.3680043.10.999.%d.%d", 1_000_000+i, r.IntN(1e9))
		patient := r.IntN(max(1, n*2/5))
		text := func(t pipeline.Tag, vr, v string) { h.SetText(t, vr, v) }
		text(pipeline.TagStudyDate, "DA", day(r.IntN(1<<20)))
		text(pipeline.TagStudyTime, "TM", fmt.Sprintf("%02d%02d%02d", r.IntN(24), r.IntN(60), r.IntN(60)))
		text(pipeline.TagAccessionNumber, "SH", fmt.Sprintf("ACC%09d", i))
		text(pipeline.TagReferringPhysicianName, "PN", family(r.IntN(500))+"^"+givens[r.IntN(len(givens))])
		text(pipeline.TagStudyDescription, "LO", "Chest radiograph, two views")
		text(pipeline.TagPatientName, "PN", family(patient)+"^"+givens[patient/3%len(givens)]+"^"+string(rune('A'+patient%26)))
		text(pipeline.TagPatientID, "LO", fmt.Sprintf("MRN%08d", patient))
		text(pipeline.TagPatientBirthDate, "DA", day(patient))
		text(pipeline.TagPatientSex, "CS", []string{"F", "M"}[patient%2])
		text(pipeline.TagStudyID, "SH", strconv.Itoa(i%1000))
		text(pipeline.TagModality, "CS", []string{"DX", "CR", "DX", "DX"}[i%4])
		text(pipeline.TagSeriesNumber, "IS", "1")
		text(pipeline.TagBodyPartExamined, "CS", "CHEST")
		text(pipeline.TagInstanceNumber, "IS", "1")
		text(pipeline.TagViewPosition, "CS", "PA")
		h.SetInts(pipeline.TagRows, "US", 2500)
		h.SetInts(pipeline.TagColumns, "US", 2048)
		h.SetInts(pipeline.TagBitsAllocated, "US", 16)
		batch = append(batch, &pipeline.Instance{StudyInstanceUID: study, SeriesInstanceUID: study + ".1", SOPInstanceUID: study + ".1.1",
			SOPClassUID: "1.2.840.10008.5.1.4.1.1.1.1", TransferSyntaxUID: "1.2.840.10008.1.2.4.70", Header: h})
		if len(batch) == 1000 {
			flush()
		}
	}
	flush()
	took := time.Since(start)
	size := int64(0)
	if i, err := os.Stat(filepath.Join(dir, "index.db")); err == nil {
		size = i.Size()
	}
	b.Logf("%d studies entered in %.0f s, %.0f a second; the index has %d MB, %d bytes a study", n, took.Seconds(), float64(n)/took.Seconds(), size>>20, size/int64(n))
}

type query struct {
	name string
	path func(i int) string
}

func queries(n int) []query {
	r := rand.New(rand.NewPCG(3, 4))
	deep := min(99_900, n/10)
	days := func(length int) string {
		d := r.IntN(15*365 - length)
		return "StudyDate=" + day(d) + "-" + day(d+length)
	}
	prefix := func(length int) string {
		f := []rune(family(r.IntN(500)))
		return "PatientName=" + string(f[:min(length, len(f))]) + "*"
	}
	page := func(offset int) string { return fmt.Sprintf("&limit=100&offset=%d", offset) }
	studies := func(f func(i int) string) func(int) string { return func(i int) string { return "/studies?" + f(i) } }
	return []query{
		{"all/page1", studies(func(int) string { return page(0) })},
		{"all/page1000", studies(func(int) string { return page(deep + r.IntN(100)) })},
		{"all/last", studies(func(int) string { return page(n - 150 + r.IntN(50)) })},
		{"patient/page1", studies(func(int) string { return fmt.Sprintf("PatientID=MRN%08d", r.IntN(max(1, n*2/5))) + page(0) })},
		{"patient/page1000", studies(func(int) string { return fmt.Sprintf("PatientID=MRN%08d", r.IntN(max(1, n*2/5))) + page(deep) })},
		{"date30/page1", studies(func(int) string { return days(30) + page(0) })},
		{"date3years/page1", studies(func(int) string { return days(3*365) + page(0) })},
		{"date3years/page1000", studies(func(int) string { return days(3*365) + page(deep) })},
		{"name3/page1", studies(func(int) string { return prefix(3) + page(0) })},
		{"name8/page1", studies(func(int) string { return prefix(8) + page(0) })},
		{"nameS/page1000", studies(func(i int) string { return "PatientName=" + []string{"S", "s"}[i%2] + "*" + page(deep+r.IntN(500)) })},
		{"name1/page1000", studies(func(int) string { return prefix(1) + page(deep) })},
		{"date+modality+name", studies(func(int) string { return days(365) + "&ModalitiesInStudy=CR&" + prefix(2) + page(0) })},
		{"date+sex", studies(func(int) string { return days(365) + "&PatientSex=F" + page(0) })},
		{"accession", studies(func(int) string { return fmt.Sprintf("AccessionNumber=ACC%09d", r.IntN(n)) })},
		{"fuzzy", studies(func(int) string {
			return "fuzzymatching=true&PatientName=" + givens[r.IntN(16)] + "%20" + family(r.IntN(500)) + page(0)
		})},
		{"newest/page1", studies(func(int) string { return "orderby=-StudyDate,-StudyTime" + page(r.IntN(100)) })},
		{"newest/page1000", studies(func(int) string { return "orderby=-StudyDate" + page(deep+r.IntN(100)) })},
		{"inside", studies(func(i int) string { return fmt.Sprintf("PatientID=*%05d", i%100_000) + page(0) })},
		{"count/date", func(int) string { return "/studies/count?" + days(365) }},
		{"instances of a patient", func(int) string { return fmt.Sprintf("/instances?PatientID=MRN%08d", r.IntN(max(1, n*2/5))) }},
		{"series by modality", func(int) string { return "/series?Modality=CR" + page(r.IntN(500)) }},
	}
}

// cpu is what this process has used of the processors so far, client and server together.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// rss is the memory of this process in MB.
func rss() int {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, resident int
	if _, err := fmt.Sscan(string(b), &size, &resident); err != nil {
		return 0
	}
	return resident * os.Getpagesize() >> 20
}
