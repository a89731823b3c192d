-- A study that came by C-STORE and has been quiet for StableAge seconds goes to ChatXRay.
function OnStableStudy(id, tags, metadata)
  RestApiPost('/dicom-web/servers/chatxray/stow', '{"Resources": ["' .. id .. '"], "Synchronous": false}')
end

-- A report that came back by STOW-RS goes on to the PACS by C-STORE.
function OnStoredInstance(id, tags, metadata, origin)
  if origin['RequestOrigin'] ~= 'DicomProtocol' and tags['Modality'] == 'SR' then
    SendToModality(id, 'pacs')
  end
end

-- What could not be sent is sent again, until the other side is back.
function OnJobFailure(job)
  os.execute('sleep 5')
  RestApiPost('/jobs/' .. job .. '/resubmit', '')
end
