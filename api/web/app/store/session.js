// Keeps the session in IndexedDB, the only storage that the service worker can
// read too. sw.js opens the same database by the same names. The keys are
// "token", "lang" (the worker's language) and "push" (the soft ask's answer).

const DATABASE = 'approvals';
const STORE = 'session';

export const load = (key) => transact('readonly', (store) => store.get(key));
export const save = (key, value) => transact('readwrite', (store) => store.put(value, key));
export const remove = (key) => transact('readwrite', (store) => store.delete(key));

async function transact(mode, request) {
  const database = await open();
  try {
    return await new Promise((resolve, reject) => {
      const transaction = database.transaction(STORE, mode);
      const result = request(transaction.objectStore(STORE));
      transaction.oncomplete = () => resolve(result.result);
      transaction.onabort = () => reject(transaction.error);
    });
  } finally {
    database.close();
  }
}

function open() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE);
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
