package main

// resource is a measure of one GET, of each object in turn.
func resource(name, bar, under, accept string, least int64, share float64) measure {
	return measure{name: name, bar: bar, share: share, prepare: func(s *server, objects *set) (func(int) error, error) {
		return func(i int) error { return s.get(objects.paths[i%len(objects.paths)]+under, accept, least) }, nil
	}}
}

var retrieveMeasures = []measure{
	resource("WADO-RS instance, 8.4 MB", "1/2", "", `multipart/related; type="application/dicom"`, 8<<20, 2),
	resource("WADO-RS instance as stored", "1/2", "", `multipart/related; type="application/dicom"; transfer-syntax=*`, 8<<20, 2),
	resource("WADO-RS frame, uncompressed", "1/2", "/frames/1", `multipart/related; type="application/octet-stream"`, 8<<20, 2),
	resource("WADO-RS rendered JPEG, full size", "1/2", "/rendered", "image/jpeg", 100<<10, 1),
	resource("WADO-RS rendered JPEG, viewport=512", "1/2", "/rendered?viewport=512,512", "image/jpeg", 5<<10, 1),
	resource("WADO-RS rendered JPEG, window, viewport=512", "1/2", "/rendered?viewport=512,512&window=2048,3000,linear", "image/jpeg", 5<<10, 1),
	resource("WADO-RS metadata of an instance", "", "/metadata", "application/dicom+json", 500, 2),
	resource("WADO-RS frame as JPEG-LS", "", "/frames/1", `multipart/related; type="image/jls"`, 1<<20, 0.25),
}
