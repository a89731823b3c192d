package dicom

import "strings"

// The transfer syntaxes of the standard (PS3.6 table A-1) whose pixels are not decoded here. They are registered so that an object
// in one of them is unsupported and not unknown: it can be kept and forwarded, but not read.
func init() {
	for _, s := range []struct{ uid, name string }{
		{"1.2.840.10008.1.2.1.98", "Encapsulated Uncompressed Explicit VR Little Endian"},
		{"1.2.840.10008.1.2.4.52", "JPEG Extended (Processes 3 and 5) (retired)"},
		{"1.2.840.10008.1.2.4.54", "JPEG Spectral Selection, Non-Hierarchical (Processes 7 and 9) (retired)"},
		{"1.2.840.10008.1.2.4.56", "JPEG Full Progression, Non-Hierarchical (Processes 11 and 13) (retired)"},
		{"1.2.840.10008.1.2.4.58", "JPEG Lossless, Non-Hierarchical (Process 15) (retired)"},
		{"1.2.840.10008.1.2.4.59", "JPEG Extended, Hierarchical (Processes 16 and 18) (retired)"},
		{"1.2.840.10008.1.2.4.60", "JPEG Extended, Hierarchical (Processes 17 and 19) (retired)"},
		{"1.2.840.10008.1.2.4.61", "JPEG Spectral Selection, Hierarchical (Processes 20 and 22) (retired)"},
		{"1.2.840.10008.1.2.4.62", "JPEG Spectral Selection, Hierarchical (Processes 21 and 23) (retired)"},
		{"1.2.840.10008.1.2.4.63", "JPEG Full Progression, Hierarchical (Processes 24 and 26) (retired)"},
		{"1.2.840.10008.1.2.4.64", "JPEG Full Progression, Hierarchical (Processes 25 and 27) (retired)"},
		{"1.2.840.10008.1.2.4.65", "JPEG Lossless, Hierarchical (Process 28) (retired)"},
		{"1.2.840.10008.1.2.4.66", "JPEG Lossless, Hierarchical (Process 29) (retired)"},
		{"1.2.840.10008.1.2.4.92", "JPEG 2000 Part 2 Multi-component Image Compression (Lossless Only)"},
		{"1.2.840.10008.1.2.4.93", "JPEG 2000 Part 2 Multi-component Image Compression"},
		{"1.2.840.10008.1.2.4.94", "JPIP Referenced"},
		{"1.2.840.10008.1.2.4.95", "JPIP Referenced Deflate"},
		{"1.2.840.10008.1.2.4.100", "MPEG2 Main Profile / Main Level"},
		{"1.2.840.10008.1.2.4.100.1", "Fragmentable MPEG2 Main Profile / Main Level"},
		{"1.2.840.10008.1.2.4.101", "MPEG2 Main Profile / High Level"},
		{"1.2.840.10008.1.2.4.101.1", "Fragmentable MPEG2 Main Profile / High Level"},
		{"1.2.840.10008.1.2.4.102", "MPEG-4 AVC/H.264 High Profile / Level 4.1"},
		{"1.2.840.10008.1.2.4.102.1", "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.1"},
		{"1.2.840.10008.1.2.4.103", "MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1"},
		{"1.2.840.10008.1.2.4.103.1", "Fragmentable MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1"},
		{"1.2.840.10008.1.2.4.104", "MPEG-4 AVC/H.264 High Profile / Level 4.2 For 2D Video"},
		{"1.2.840.10008.1.2.4.104.1", "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 For 2D Video"},
		{"1.2.840.10008.1.2.4.105", "MPEG-4 AVC/H.264 High Profile / Level 4.2 For 3D Video"},
		{"1.2.840.10008.1.2.4.105.1", "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 For 3D Video"},
		{"1.2.840.10008.1.2.4.106", "MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2"},
		{"1.2.840.10008.1.2.4.106.1", "Fragmentable MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2"},
		{"1.2.840.10008.1.2.4.107", "HEVC/H.265 Main Profile / Level 5.1"},
		{"1.2.840.10008.1.2.4.108", "HEVC/H.265 Main 10 Profile / Level 5.1"},
		{"1.2.840.10008.1.2.4.110", "JPEG XL Lossless"},
		{"1.2.840.10008.1.2.4.111", "JPEG XL JPEG Recompression"},
		{"1.2.840.10008.1.2.4.112", "JPEG XL"},
		{"1.2.840.10008.1.2.4.204", "JPIP HTJ2K Referenced"},
		{"1.2.840.10008.1.2.4.205", "JPIP HTJ2K Referenced Deflate"},
		{"1.2.840.10008.1.2.6.1", "RFC 2557 MIME encapsulation (retired)"},
		{"1.2.840.10008.1.2.6.2", "XML Encoding (retired)"},
		{"1.2.840.10008.1.2.7.1", "SMPTE ST 2110-20 Uncompressed Progressive Active Video"},
		{"1.2.840.10008.1.2.7.2", "SMPTE ST 2110-20 Uncompressed Interlaced Active Video"},
		{"1.2.840.10008.1.2.7.3", "SMPTE ST 2110-30 PCM Digital Audio"},
		{"1.2.840.10008.1.2.8.1", "Deflated Image Frame Compression"},
		{"1.2.840.10008.1.20", "Papyrus 3 Implicit VR Little Endian (retired)"},
	} {
		video := strings.HasPrefix(s.uid, "1.2.840.10008.1.2.4.10") // 100 to 108
		register(syntax{Syntax: Syntax{UID: s.uid, Name: s.name, Encapsulated: true}, video: video})
	}
}
